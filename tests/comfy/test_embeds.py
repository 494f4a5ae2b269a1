"""Load Embeds (MoA): files of IPAdapter_plus are the subjects that their pictures would be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import host
import pytest
import torch
from comfyui_moa.moa_attention.formats.errors import StoredFileError
from comfyui_moa.nodes.combine import MoASubjectCombine
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.pictures.embeds import read_embeds
from comfyui_moa.nodes.library import MoALoadEmbeds
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.sockets import LoadedAdapter
from test_image_prompts import FEATURES, TOKENS, write_file


def loaded_adapter(base: Path, kind: str) -> LoadedAdapter:
    register_adapter_folders()
    folder = base / "models" / "ipadapter"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(host.sd15(), host.SD15_CONTEXT, folder / f"embeds_{kind}.safetensors", kind)
    return LoadMoAAdapter.execute(f"ipadapter/embeds_{kind}.safetensors").result[0]


def save(base: Path, name: str, content: Any) -> Path:
    (base / "input").mkdir(exist_ok=True)
    torch.save(content, base / "input" / name)
    return base / "input" / name


@pytest.mark.parametrize(("kind", "output"), [("base", "image_embeds"), ("plus", "penultimate_hidden_states")])
def test_a_file_gives_the_subject_of_its_pictures(base: Path, kind: str, output: str):
    adapter = loaded_adapter(base, kind)
    vision = host.clip_vision(FEATURES, FEATURES)
    pictures = torch.rand(2, 224, 224, 3, generator=torch.Generator().manual_seed(1))
    encoded = [SubjectEncode.execute(adapter, p[None], "man", clip_vision=vision).result[0] for p in pictures]
    save(base, "both.ipadpt", vision.encode_image(pictures)[output])
    subject = MoALoadEmbeds.execute(adapter, "both.ipadpt", " man ", vision).result[0]
    wanted = MoASubjectCombine.execute({"a": encoded[0], "b": encoded[1]}, "concat").result[0]
    assert (subject.word, subject.encoder, subject.tokens) == ("man", wanted.encoder, 2 * TOKENS)
    assert wanted.tokens == 2 * TOKENS
    assert torch.equal(subject.negative, encoded[0].negative)
    alone = MoALoadEmbeds.execute(adapter, "both.ipadpt", "man").result[0].negative
    assert (alone is None) == (kind == "plus")
    torch.testing.assert_close(subject.features, wanted.features, rtol=1e-4, atol=1e-5)
    assert (wanted.features[:, :100] - wanted.features[:, -100:]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"embeds": torch.ones(1, FEATURES)}, "it holds dict instead of a tensor"),
        (Path("x"), "cannot be read as tensors"),
        (torch.ones(1, FEATURES, dtype=torch.int64), r"contains \(1, 24\) of int64"),
        (torch.ones(FEATURES), r"contains \(24,\) of float32"),
        (torch.ones(65, FEATURES), r"at most 64 pictures, but contains \(65, 24\)"),
        (torch.full((1, FEATURES), torch.nan), "contains NaN or infinity"),
    ],
)
def test_other_contents_are_refused(content: Any, message: str, base: Path):
    with pytest.raises(StoredFileError, match=message):
        read_embeds(save(base, "other.ipadpt", content))


def test_embeds_of_another_encoder_are_refused(base: Path):
    save(base, "wide.ipadpt", torch.ones(1, 2 * FEATURES))
    save(base, "patches.ipadpt", torch.ones(1, 5, FEATURES))
    adapter = loaded_adapter(base, "base")
    with pytest.raises(ValueError, match=r"holds features \(1, 48\), but adapter .* reads embedding 24 wide"):
        MoALoadEmbeds.execute(adapter, "wide.ipadpt", "man")
    with pytest.raises(ValueError, match=r"holds features \(1, 5, 24\)"):
        MoALoadEmbeds.execute(adapter, "patches.ipadpt", "man")
    save(base, "huge.ipadpt", torch.full((1, FEATURES), 3e38))
    with pytest.raises(StoredFileError, match=r"features of which adapter .* makes NaN or infinity"):
        MoALoadEmbeds.execute(adapter, "huge.ipadpt", "man")
    with pytest.raises(ValueError, match=r"reads a CLIP vision model alone.*needs face"):
        MoALoadEmbeds.execute(loaded_adapter(base, "faceid"), "wide.ipadpt", "man")


def test_a_missing_or_foreign_file_is_named(base: Path):
    adapter = loaded_adapter(base, "base")
    save(base, "known.ipadpt", torch.ones(1, FEATURES))
    (base / "secret.ipadpt").write_bytes(b"")
    for name in ("missing.ipadpt", "../secret.ipadpt"):
        with pytest.raises(FileNotFoundError, match=r"No file of image features .*known\.ipadpt"):
            MoALoadEmbeds.execute(adapter, name, "man")
    for word in ("man\nlicence: MIT", "m" * 501, "m\0n"):
        with pytest.raises(
            ValueError, match="'word' in 'Load Embeds .* has line breaks, control characters or more than 500"
        ):
            MoALoadEmbeds.execute(adapter, "known.ipadpt", word)
    with pytest.raises(ValueError, match="'word' is empty in 'Load Embeds"):
        MoALoadEmbeds.execute(adapter, "known.ipadpt", " ")
