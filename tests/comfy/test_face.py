"""Face embeddings for FaceID files. The recogniser has InsightFace's interface, not its models, which are not free."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host
import numpy as np
import pytest
import torch
from comfyui_moa.moa_attention.subjects.align import TEMPLATE, TEMPLATE_SIDE
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.face import SKIP, STOP, MoAFaceEmbedding, MoALoadFaceEmbedding
from comfyui_moa.nodes.host.files.clip_files import fitting_files_hint, width_in_file
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.pictures.vision import CLIP_PICTURE
from comfyui_moa.nodes.host.prompts.subject_context import SubjectContext
from comfyui_moa.nodes.prompt import MoATextEncode
from safetensors.torch import save_file
from test_image_prompts import TOKENS, load_from_drop_down


@dataclass
class Face:
    bbox: np.ndarray
    kps: np.ndarray
    embedding: np.ndarray


class Recogniser:
    """Finds a face in every red square; the embedding is one at the index of its side in pixels."""

    def get(self, pixels: np.ndarray) -> list[Face]:
        assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]
        blue, green, red = np.moveaxis(pixels, -1, 0).astype(int)  # OpenCV's order
        columns = ((red > 200) & (blue < 50) & (green < 50)).any(axis=0)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], columns.astype(int), [0]])))
        return [self.face(left, right) for left, right in edges.reshape(-1, 2)]

    def face(self, left: int, right: int) -> Face:
        side = right - left
        embedding = np.zeros(512, np.float32)
        embedding[side] = 1
        return Face(
            np.array([left, 4, right, 4 + side]), TEMPLATE.numpy() * side / TEMPLATE_SIDE + [left, 4], embedding
        )


def picture(*squares: tuple[int, int]) -> torch.Tensor:
    """(1,40,64,3): red squares from column to column, four pixels below the top, on grey."""
    made = torch.full((1, 40, 64, 3), 0.4)
    for left, right in squares:
        made[0, 4 : 4 + right - left, left:right] = torch.tensor([1.0, 0, 0])
    return made


def embed(image: torch.Tensor, order: str = "largest first", index: int = 1, if_none: str = STOP):
    return MoAFaceEmbedding.execute(image, Recogniser(), order, index, if_none).result


def test_the_wanted_face_is_embedded_and_cut_out():
    two = picture((4, 14), (30, 50))
    for order, index, side in (("largest first", 1, 20), ("largest first", 2, 10), ("left to right", 1, 10)):
        face, images = embed(two, order, index)
        assert face.shape == (1, 512) and face[0].argmax() == side
        assert images.shape == (1, CLIP_PICTURE, CLIP_PICTURE, 3)
        middle = images[0, CLIP_PICTURE // 4 : -CLIP_PICTURE // 4, CLIP_PICTURE // 4 : -CLIP_PICTURE // 4]
        torch.testing.assert_close(middle.mean(dim=(0, 1)), torch.tensor([1.0, 0, 0]), rtol=0, atol=0.01)


def test_pictures_without_that_face_stop_or_are_left_out():
    batch = torch.cat([picture((4, 14)), picture(), picture((4, 24))])
    with pytest.raises(ValueError, match=r"face 1 \(largest first\) in picture 2, but found none"):
        embed(batch)
    face, images = embed(batch, if_none=SKIP)
    assert face.argmax(dim=1).tolist() == [10, 20] and len(images) == 2
    with pytest.raises(ValueError, match="face 2 .* in picture 1, but found 1"):
        embed(batch, index=2)


def test_without_any_face_the_prompt_is_unchanged(base: Path):
    adapter, _ = load_from_drop_down("faceid", base)
    face, images = embed(picture(), if_none=SKIP)
    (subject,) = SubjectEncode.execute(adapter, images, "man", face=face).result
    assert subject.absent
    clip = host.sd15_clip(host.SD15_CONTEXT)
    conditioning, report = MoATextEncode.execute(clip, "a man", {"subject_0": subject}).result
    assert "left out: 'man'" in report and not isinstance(conditioning[0][0], SubjectContext)


@pytest.mark.parametrize("kind", ["faceid", "instantid"])
def test_the_length_of_an_embedding_counts_where_the_file_needs_it(kind: Any, base: Path):
    adapter, _ = load_from_drop_down(kind, base)
    face = torch.rand(1, 512, generator=torch.Generator().manual_seed(1))
    short, long = (
        SubjectEncode.execute(adapter, picture(), "man", face=length * face).result[0].features for length in (1.0, 3.0)
    )
    if kind == "faceid":
        torch.testing.assert_close(short, long, rtol=1e-4, atol=1e-5)
        return
    assert (short - long).abs().max() > 1e-3
    projection = adapter.patcher.model.projection
    torch.testing.assert_close(short, projection(face).detach().flatten(1), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="needs a face embedding as the recogniser gives it"):
        SubjectEncode.execute(adapter, picture(), "man", face=torch.nn.functional.normalize(face))


def test_files_of_embeddings(base: Path):
    register_adapter_folders()
    folder = base / "models" / "moa" / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(0).standard_normal((3, 512)).astype(np.float32)
    np.save(folder / "three.npy", rows)
    np.save(folder / "one.npy", rows[0].astype(np.float64))
    save_file({"face": torch.from_numpy(rows)}, folder / "three.safetensors")
    for name, wanted in (("three.npy", rows), ("one.npy", rows[:1]), ("three.safetensors", rows)):
        (face,) = MoALoadFaceEmbedding.execute(name).result
        assert face.dtype == torch.float32 and np.array_equal(face.numpy(), wanted)
    adapter, _ = load_from_drop_down("faceid", base)
    (subject,) = SubjectEncode.execute(adapter, picture(), "man", face=face).result
    assert subject.features.shape == (1, TOKENS * host.SD15_CONTEXT)


def test_files_without_one_embedding_array_are_refused(base: Path):
    register_adapter_folders()
    folder = base / "models" / "moa" / "faces"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "words.npy", np.array(["a"]))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    save_file({"a": torch.zeros(512), "b": torch.zeros(512)}, folder / "two.safetensors")
    np.save(folder / "infinite.npy", np.full(512, np.inf))
    for name, message in (
        ("infinite.npy", "infinite.npy' contains NaN or infinity"),
        ("words.npy", "cannot be read"),
        ("objects.npy", "cannot be read"),
        ("two.safetensors", r"but contains a \(512,\), b"),
    ):
        with pytest.raises(ValueError, match=message):
            MoALoadFaceEmbedding.execute(name)
    with pytest.raises(FileNotFoundError, match="No face embedding '../../secret.npy' in .*Files there: .*words.npy"):
        MoALoadFaceEmbedding.execute("../../secret.npy")


def test_messages_name_the_clip_vision_files_that_fit(base: Path):
    folder = base / "models" / "clip_vision"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {"vision_model.post_layernorm.weight": torch.zeros(24), "visual_projection.weight": torch.zeros(16, 24)},
        folder / "small.safetensors",
    )
    save_file(
        {"visual.proj": torch.zeros(20, 12), "visual.ln_post.weight": torch.zeros(20)}, folder / "open.safetensors"
    )
    (folder / "torn.safetensors").write_bytes(b"torn")
    assert width_in_file(str(folder / "torn.safetensors"), "patches") is None
    for encoder_input, width, name in (
        ("patches", 24, "small"),
        ("embedding", 16, "small"),
        ("patches", 20, "open"),
        ("embedding", 12, "open"),
    ):
        assert fitting_files_hint(encoder_input, width) == f"Models in models/clip_vision that fit: {name}.safetensors."
    assert fitting_files_hint("patches", 16) == (
        "No model in models/clip_vision fits (3 checked). Download that model and put it there."
    )
    adapter, _ = load_from_drop_down("plus", base)
    with pytest.raises(
        ValueError, match="none is connected. .* Models in models/clip_vision that fit: small.safetensors"
    ):
        SubjectEncode.execute(adapter, picture(), "man")
    for file in folder.iterdir():
        file.unlink()
