"""FastComposer on the real host: converted by the command, loaded as any adapter, equal to the published model."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.utils
import folder_paths
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.formats.fastcomposer import import_fastcomposer
from comfyui_moa.moa_attention.formats.tensors import StoredFile, from_memory
from comfyui_moa.moa_attention.routers.words import WordRouter
from comfyui_moa.moa_attention.subjects.reference import prepare_reference
from comfyui_moa.nodes.apply import ApplyMoA, choose_router
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.model import layers
from comfyui_moa.nodes.host.model.unet import attention_layers, unet_of
from comfyui_moa.nodes.host.pictures.vision import CLIP_PICTURE
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.host.training.trainable import trainable_adapter
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.sockets import Subject
from comfyui_moa.recipes import convert_fastcomposer
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "core"))
import fastcomposer_files as files  # noqa: E402

MAN, WOMAN = 4, 9
VISION = "image_encoder."
BLOCKS = 4
"""Of the tiny CLIP vision model."""


@dataclass
class Converted(subjects.Family):
    """A tiny SD1.5 and the adapter that the command made of a file in the published layout."""

    file: dict[str, Tensor]
    about: str


@pytest.fixture(scope="module")
def family(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    register_adapter_folders()
    file = files.tensors(files.TINY, files.random(0))
    source = tmp_path_factory.mktemp("fastcomposer") / "pytorch_model.bin"
    torch.save(file, source)
    folder = Path(folder_paths.get_folder_paths("moa")[0])
    folder.mkdir(parents=True, exist_ok=True)
    convert_fastcomposer.main([str(source), str(folder / "fastcomposer.safetensors")])
    adapter, about = LoadMoAAdapter.execute("fastcomposer.safetensors").result
    return Converted("sd15", host.sd15(), host.SD15_CONTEXT, None, adapter, file, about)


def stored(tensors: dict[str, Tensor]) -> StoredFile:
    return from_memory(Path("pytorch_model.bin"), tensors)


def feature(seed: int) -> Tensor:
    return torch.randn(1, files.TINY.image, generator=torch.Generator().manual_seed(seed))


def prompt(family: Converted, placed: dict[int, int]) -> host.Conditioning:
    """`placed` maps a token's position to the seed of an image feature."""
    [[context, extra]] = family.prompt()
    encoder = family.adapter.encoder
    bindings = [Binding(Subject("man", 1, feature(seed), encoder), at) for at, seed in placed.items()]
    return [with_subjects(context, extra, bindings)]


def apply(family: Converted, strength: float = 1.0, router: str = "constant") -> Any:
    return ApplyMoA.execute(family.model, family.adapter, strength, router=router).result[0]


def tuned_unet(family: Converted) -> Any:
    """The host's model with the file's attention written over its own, by the host's map of diffusers' names."""
    model = host.sd15()
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    theirs = {k.removeprefix("unet."): t for k, t in family.file.items() if ".attn1." in k or ".attn2." in k}
    written = model.model.diffusion_model.load_state_dict({names[k]: t for k, t in theirs.items()}, strict=False)
    assert len(theirs) == 160 and not written.unexpected_keys
    return model


def fused_by_hand(family: Converted, placed: dict[int, int]) -> host.Conditioning:
    """The prompt with subjects written into its text embedding by the published formula."""
    weights = {k.removeprefix("postfuse_module."): t.float() for k, t in family.file.items() if "postfuse" in k}

    def norm(name: str, x: Tensor) -> Tensor:
        return nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def mlp(name: str, x: Tensor) -> Tensor:
        return linear(f"{name}.fc2", nn.functional.gelu(linear(f"{name}.fc1", norm(f"{name}.layernorm", x))))

    [[context, extra]] = family.prompt()
    context = context.clone()
    for at, seed in placed.items():
        word = context[:, at]
        hidden = word + mlp("mlp1", torch.cat([word, feature(seed)], -1))
        context[:, at] = norm("layer_norm", hidden + mlp("mlp2", hidden))
    return [[context, extra]]


def test_the_pinned_adapter_is_the_model_with_fastcomposers_attention_and_prompt(family: Converted):
    placed = {MAN: 11, WOMAN: 12}
    ours = family.sample(apply(family), prompt(family, placed), cfg=1.0)
    theirs = family.sample(tuned_unet(family), fused_by_hand(family, placed), cfg=1.0)
    unfused = family.sample(tuned_unet(family), family.prompt(), cfg=1.0)
    base = family.sample(family.model, family.prompt(), cfg=1.0)
    assert subjects.difference(theirs, ours) < 1e-4
    assert subjects.difference(theirs, unfused) > 1e-2 and subjects.difference(theirs, base) > 1e-2


@pytest.mark.parametrize("router", ["constant", "attention"])
def test_strength_zero_and_prompts_without_subjects_are_the_base_model(family: Converted, router: str):
    base = family.sample(family.model, family.prompt())
    assert torch.equal(family.sample(apply(family, 0.0, router), prompt(family, {MAN: 11})), base)
    assert torch.equal(family.sample(apply(family, 1.0, router), family.prompt()), base)


def test_subjects_exchanged_with_their_words_are_the_same_picture(family: Converted):
    model = apply(family, router="automatic")
    forth, back, crossed = (
        family.sample(model, prompt(family, placed), steps=4)
        for placed in ({MAN: 11, WOMAN: 12}, {WOMAN: 12, MAN: 11}, {MAN: 12, WOMAN: 11})
    )
    assert forth.isfinite().all() and subjects.difference(forth, back) < 1e-4 < subjects.difference(forth, crossed)
    constant = family.sample(apply(family), prompt(family, {MAN: 11, WOMAN: 12}), steps=4)
    assert subjects.difference(forth, constant) > 1e-3


def test_a_learned_router_is_refused_for_a_file_without_one(family: Converted):
    assert isinstance(choose_router("automatic", family.adapter), WordRouter)
    with pytest.raises(ValueError, match="has no learned routers"):
        choose_router("learned", family.adapter)


def vision(hidden: int = files.TINY.vision, projected: int = files.TINY.image) -> Any:
    """A stock CLIP vision model as FastComposer's, but small."""
    wide = 4 * hidden
    return host.clip_vision(
        hidden, projected, num_hidden_layers=BLOCKS, intermediate_size=wide, hidden_act="quick_gelu"
    )


def tuned_vision(family: Converted) -> Any:
    """The stock model with its last blocks from the file."""
    made = vision()
    end = {
        f"{VISION}vision_model.encoder.layers.{24 - n}.": f"vision_model.encoder.layers.{BLOCKS - n}." for n in (1, 2)
    }
    end |= {f"{VISION}{name}.": f"{name}." for name in ("vision_model.post_layernorm", "visual_projection")}
    weights = {
        ours + name.removeprefix(theirs): tensor
        for theirs, ours in end.items()
        for name, tensor in family.file.items()
        if name.startswith(theirs)
    }
    assert len(weights) == 2 * 16 + 3 and not made.model.load_state_dict(weights, strict=False).unexpected_keys
    return made


@torch.inference_mode()
def test_the_tail_turns_the_stock_model_into_the_tuned_one(family: Converted):
    picture = torch.rand(1, 40, 30, 3, generator=torch.Generator().manual_seed(0))
    (subject,) = SubjectEncode.execute(family.adapter, picture, "man", clip_vision=vision()).result
    prepared = prepare_reference(picture, None, CLIP_PICTURE).movedim(1, -1)
    tuned, stock = (model.encode_image(prepared)["image_embeds"] for model in (tuned_vision(family), vision()))
    assert subject.features.shape == (1, files.TINY.image)
    assert subjects.difference(tuned, subject.features) < 1e-4 < 1e-2 < subjects.difference(tuned, stock)


def test_other_vision_models_are_refused_by_name(family: Converted):
    picture, wanted = torch.rand(1, 16, 16, 3), "needs features of 'clip-vit-large-patch14'"
    for model, message in (
        (vision(projected=64), f"{wanted}, 48 wide, but the connected input gives 64"),
        (vision(hidden=64), f"{wanted}, 128 wide, but the connected input gives 64"),
        (host.clip_vision(8, 8), f"{wanted}, 48 wide, but the connected input gives 8"),
        (None, "'clip-vit-large-patch14', and none is connected"),
    ):
        with pytest.raises(ValueError, match=message):
            SubjectEncode.execute(family.adapter, picture, "man", clip_vision=model)


def test_features_of_two_tails_do_not_mix(family: Converted):
    other = import_fastcomposer(stored(files.tensors(files.TINY, files.random(1))))
    same = import_fastcomposer(stored(family.file))
    assert other.identity != same.identity == family.adapter.encoder
    assert family.adapter.encoder.startswith("clip-vit-large-patch14:")


def test_the_report_names_the_parts_of_the_file(family: Converted):
    assert "for sd15, 32 attention layers, whole matrices" in family.about
    assert "encodes pictures with clip-vit-large-patch14, whose last 2 blocks are in the file" in family.about
    assert "licence: MIT" in family.about and "converted from: FastComposer (arXiv 2305.10431" in family.about
    assert "left behind: " in family.about and "which was fine-tuned whole: convolutions" in family.about


def test_the_command_refuses_other_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"weight": torch.zeros(1), "bias": torch.zeros(1)}, tmp_path / "other.bin")
    torch.save({"weight": object(), "bias": torch.zeros(1)}, tmp_path / "objects.bin")
    for name, message in (
        ("other.bin", "is not a FastComposer model: .* but bias, weight"),
        ("objects.bin", "cannot be read"),
    ):
        with pytest.raises(SystemExit, match=f"convert-fastcomposer: .*{message}"):
            convert_fastcomposer.main([str(tmp_path / name)])
    with pytest.raises(SystemExit):
        convert_fastcomposer.main([str(tmp_path / "other.bin"), str(tmp_path / "other.bin")])
    assert "the output must be a .safetensors file" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 2


def test_it_is_not_trained_further_without_routers(family: Converted):
    encoders: Any = None  # refused before any picture is read
    with pytest.raises(ValueError, match="has no routers that can be trained"):
        trainable_adapter(family.model, encoders, "", family.adapter.patcher.model, 0)


def test_a_file_of_the_published_size_fits_sd15():
    adapter = import_fastcomposer(stored(files.tensors(files.Widths())))
    model = host.build(*host.real_width("sd15"), device="meta")
    assert [layer.spec for layer in attention_layers(unet_of(model))] == list(adapter.config.layers)
    fitting = layers.layer_paths(model, adapter.config)
    assert len(fitting) == 32
    with pytest.raises(ValueError, match="Load a checkpoint of the adapter's family"):
        layers.layer_paths(host.build(*host.real_width("sdxl"), device="meta"), adapter.config)
