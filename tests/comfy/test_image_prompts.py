"""IP-Adapter files on the real host: loaded as MoA adapters, equal to the published formula, routed to words."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import host
import pytest
import subjects
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfyui_moa.moa_attention.formats.errors import StoredFileError
from comfyui_moa.moa_attention.formats.ip_adapter.importing import flatten, plan_ip_adapter
from comfyui_moa.moa_attention.formats.tensors import from_memory
from comfyui_moa.moa_attention.method.factory import PLAIN
from comfyui_moa.nodes.apply import ApplyMoA, choose_router
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files import adapters
from comfyui_moa.nodes.host.model import layers, patch
from comfyui_moa.nodes.host.model.unet import attention_layers, unet_of
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.prompt import MoATextEncode
from comfyui_moa.nodes.sockets import LoadedAdapter, Subject
from safetensors.torch import save_file
from torch import Tensor

sys.path.append(str(Path(__file__).resolve().parents[1] / "core"))
import ip_files  # noqa: E402

TOKENS, FEATURES, MAN, WOMAN = 4, 24, 4, 9


def random(seed: int) -> ip_files.Make:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(shape, generator=generator) / max(1, shape[-1]) ** 0.5


def file_order(model: Any) -> list[layers.AttentionLayer]:
    """Cross-attention layers as the published files count them: down, up, middle."""
    found = [layer for layer in attention_layers(unet_of(model.model)) if layer.spec.is_cross]
    return sorted(found, key=lambda layer: ("input", "output", "middle").index(layer.spec.name.split("_")[0]))


def write_file(model: Any, context: int, path: Path, kind: Any = "base") -> dict[str, dict[str, Tensor]]:
    widths = [layer.spec.hidden for layer in file_order(model)]
    file = ip_files.nested(kind, widths, FEATURES, context, tokens=TOKENS, rank=4, make=random(3))
    if path.suffix == ".bin":
        torch.save(file, path)
    else:
        save_file({f"{part}.{name}": t for part, tensors in file.items() for name, t in tensors.items()}, path)
    return file


@dataclass
class Imported(subjects.Family):
    """A tiny model with an IP-Adapter read from a file in the published layout."""

    file: dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module", params=["sd15 base", "sdxl base", "sd15 faceid"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Imported:
    name, kind = request.param.split()
    made = subjects.make_family(name)
    path = tmp_path_factory.mktemp("ip") / "misnamed_plus.bin"
    file = write_file(made.model, made.context, path, kind)
    patcher, header = adapters.open_adapter(path)
    adapter = LoadedAdapter(patcher, path.name, patcher.model.identity, header.licence, header.provenance)
    return Imported(made.name, made.model, made.context, made.pooled, adapter, file)


def prompt(family: Imported, placed: dict[int, int]) -> host.Conditioning:
    """`placed` maps a token's position to the seed of image tokens."""
    [[context, extra]] = host.conditioning(family.context, pooled=family.pooled, seed=1)
    encoder = family.adapter.encoder
    bindings = [Binding(Subject("man", 1, image_tokens(family, seed), encoder), at) for at, seed in placed.items()]
    return [with_subjects(context, extra, bindings)]


def image_tokens(family: Imported, seed: int) -> Tensor:
    return torch.randn(1, TOKENS * family.context, generator=torch.Generator().manual_seed(seed))


def published(family: Imported, seed: int, scale: float) -> Any:
    """The model with IP-Adapter's formula written into its attention by hand, middle block and all."""
    model, tokens = family.model.clone(), image_tokens(family, seed).unflatten(1, (TOKENS, -1))
    unet, weights = unet_of(model.model), family.file["ip_adapter"]
    keys = {layer.spec.name.removesuffix("2"): 2 * n for n, layer in enumerate(file_order(family.model))}
    attentions = {spec.name: unet.get_submodule(path) for spec, path in attention_layers(unet)}

    def formula(which: int, z: Tensor, context: Tensor, options: dict) -> Tensor:
        place = f"{options['block'][0]}_{options['block'][1]}_{options['block_index']}_attn"
        prior, number = attentions[f"{place}{which}"], keys[place] + which - 1

        def through(name: str, x: Tensor) -> Tensor:
            lora, plain = f"{number}.{name.split('.')[0]}_lora", prior.get_submodule(name)(x)
            if f"{lora}.up.weight" not in weights:
                return plain
            return plain + x @ weights[f"{lora}.down.weight"].T @ weights[f"{lora}.up.weight"].T

        q = through("to_q", z)
        out = optimized_attention(q, through("to_k", context), through("to_v", context), prior.heads)
        if which == 2:
            k, v = (tokens.expand(len(q), -1, -1) @ weights[f"{number}.{h}_ip.weight"].T for h in ("to_k", "to_v"))
            out = out + scale * optimized_attention(q, k, v, prior.heads)
        return through("to_out.0", out)

    for which, patch_input, patch_output in (
        (1, model.set_model_attn1_patch, model.set_model_attn1_output_patch),
        (2, model.set_model_attn2_patch, model.set_model_attn2_output_patch),
    ):
        captured: dict[str, Tensor] = {}

        def capture(z: Tensor, context: Tensor, value: Tensor, options: dict, captured: dict = captured):
            captured.update(z=z, context=context)
            return z, context, value

        def compute(out: Tensor, options: dict, which: int = which, captured: dict = captured) -> Tensor:
            return formula(which, captured["z"], captured["context"], options)

        patch_input(capture)
        patch_output(compute)
    return model


@pytest.mark.parametrize("strength", [1.0, 1.5])
def test_every_pinned_layer_is_the_published_formula(family: Imported, strength: float):
    model, trace = ApplyMoA.execute(family.model, family.adapter, strength, router="constant").result
    ours = family.sample(model, prompt(family, {MAN: 11}), cfg=1.0)
    base = family.sample(family.model, family.prompt(), cfg=1.0)
    theirs = family.sample(published(family, 11, strength), family.prompt(), cfg=1.0)
    assert subjects.difference(theirs, ours) < 1e-4 < 1e-2 < subjects.difference(base, ours)
    assert set(trace.calls[0].maps) == {spec.name for spec in family.adapter.patcher.model.config.layers}
    assert "middle_0_0_attn2" in trace.calls[0].maps


def test_strength_zero_and_prompts_without_subjects_are_the_base_model(family: Imported):
    base = family.sample(family.model, family.prompt())
    for router in ("constant", "attention"):
        inactive, _ = ApplyMoA.execute(family.model, family.adapter, 0.0, router=router).result
        assert torch.equal(family.sample(inactive, prompt(family, {MAN: 11})), base)
        model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router=router).result
        assert torch.equal(family.sample(model, family.prompt()), base)


def test_subjects_exchanged_with_their_words_are_the_same_picture(family: Imported):
    model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    forth = family.sample(model, prompt(family, {MAN: 11, WOMAN: 12}), steps=4)
    assert trace.calls and any(m.max() > 0 for call in trace.calls for m in call.maps.values())
    back = family.sample(model, prompt(family, {WOMAN: 12, MAN: 11}), steps=4)
    crossed = family.sample(model, prompt(family, {MAN: 12, WOMAN: 11}), steps=4)
    assert subjects.difference(forth, back) < 1e-4
    assert subjects.difference(forth, crossed) > 1e-3


def test_a_negative_picture_is_a_subject_of_the_negative_prompt(family: Imported):
    """n + c (p − n) = p + (1 − c) (n − p): guidance away from a prompt is guidance towards it with the other sign."""
    model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    plain, pictured = family.prompt(seed=2), prompt(family, {MAN: 11})
    away = family.sample(model, plain, pictured, cfg=2.0)
    assert subjects.difference(away, family.sample(model, pictured, plain, cfg=-1.0)) < 1e-4
    assert subjects.difference(away, family.sample(model, plain, family.prompt(), cfg=2.0)) > 1e-3


def test_the_attention_router_starts_anew_in_every_run_and_for_every_picture_of_a_batch(family: Imported):
    model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router="attention").result
    once = family.sample(model, prompt(family, {MAN: 11}), steps=4)
    assert torch.equal(family.sample(model, prompt(family, {MAN: 11}), steps=4), once)
    constant, _ = ApplyMoA.execute(family.model, family.adapter, 1.0, router="constant").result
    assert subjects.difference(once, family.sample(constant, prompt(family, {MAN: 11}), steps=4)) > 1e-3
    pair = family.sample(model, prompt(family, {MAN: 11}), size=(8, 8, 2), steps=4)
    assert subjects.difference(once, pair[:1]) < 1e-4


def test_the_host_manages_one_copy_of_the_weights_for_all_subjects(family: Imported):
    size = family.adapter.patcher.model_size()
    assert size == sum(p.numel() * p.element_size() for p in family.adapter.patcher.model.parameters())
    model, _ = ApplyMoA.execute(family.model, family.adapter, 1.0).result
    family.sample(model, prompt(family, {MAN: 11, WOMAN: 12}))
    held = [m.model for m in comfy.model_management.current_loaded_models]
    assert sum(p is not None and p.model is family.adapter.patcher.model for p in held) == 1
    comfy.model_management.unload_all_models()
    assert not comfy.model_management.current_loaded_models


def test_both_containers_hold_the_same(tmp_path: Path):
    model = host.sd15()
    for path in (tmp_path / "a.bin", tmp_path / "b.safetensors"):
        write_file(model, host.SD15_CONTEXT, path)
    one, other = (adapters.load_adapter_patcher(p).model.state_dict() for p in sorted(tmp_path.iterdir()))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    patcher = adapters.load_adapter_patcher(tmp_path / "a.bin")
    build, args = patcher.cached_patcher_init[:2]
    assert build(*args, disable_dynamic=True).model.state_dict().keys() == one.keys()


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (exec, ("raise SystemExit('unpickled')",))


def test_files_that_are_no_tensors_are_refused(tmp_path: Path):
    torch.save({"image_proj": Evil(), "ip_adapter": {}}, tmp_path / "evil.bin")
    (tmp_path / "cut.bin").write_bytes((tmp_path / "evil.bin").read_bytes()[:100])
    torch.save({"model": {"weight": torch.zeros(1)}}, tmp_path / "other.bin")
    for name, message in (
        ("evil.bin", "cannot be read as tensors"),
        ("cut.bin", "cannot be read"),
        ("other.bin", "is not an IP-Adapter"),
    ):
        with pytest.raises(StoredFileError, match=message):
            adapters.open_adapter(tmp_path / name)


def load_from_drop_down(kind: str, base: Path) -> tuple[LoadedAdapter, str]:
    """A file of this kind in models/ipadapter, loaded as a user would."""
    from comfyui_moa.nodes.host.files.folders import adapter_names, register_adapter_folders

    register_adapter_folders()
    folder = base / "models" / "ipadapter"
    folder.mkdir(parents=True, exist_ok=True)
    write_file(host.sd15(), host.SD15_CONTEXT, folder / f"{kind}.safetensors", kind)
    name = f"ipadapter/{kind}.safetensors"
    assert name in adapter_names()
    return LoadMoAAdapter.execute(name).result


@pytest.mark.parametrize(("kind", "tokens"), [("base", TOKENS), ("plus", TOKENS), ("full", 17)])
def test_a_file_of_models_ipadapter_from_drop_down_to_subject(kind: str, tokens: int, base: Path):
    adapter, about = load_from_drop_down(kind, base)
    assert f"IP-Adapter, kind {kind}" in about and "for sd15, 16 attention layers" in about
    picture = torch.rand(2, 40, 30, 3, generator=torch.Generator().manual_seed(0))
    (subject,) = SubjectEncode.execute(adapter, picture, "man", clip_vision=host.clip_vision(FEATURES, FEATURES)).result
    assert subject.features.shape == (1, tokens * host.SD15_CONTEXT)
    with pytest.raises(ValueError, match="24 wide, but the connected input gives 8"):
        SubjectEncode.execute(adapter, picture, "man", clip_vision=host.clip_vision(8, 8))
    with pytest.raises(ValueError, match="none is connected"):
        SubjectEncode.execute(adapter, picture, "man")


def test_another_word_does_not_run_the_vision_model_again(base: Path, monkeypatch: pytest.MonkeyPatch):
    """Without the model it is an error all the same: what was encoded belongs to the connected model."""
    adapter, _ = load_from_drop_down("plus", base)
    vision, runs = host.clip_vision(FEATURES, FEATURES), []
    encode_image = vision.encode_image
    monkeypatch.setattr(vision, "encode_image", lambda images: runs.append(len(images)) or encode_image(images))
    picture = torch.rand(1, 40, 30, 3, generator=torch.Generator().manual_seed(2))

    def encode(word: str, clip_vision: Any) -> Tensor:
        return SubjectEncode.execute(adapter, picture, word, clip_vision=clip_vision).result[0].features

    first = encode("man", vision)
    assert len(runs) == 2  # the picture, and a black one for the negative prompt
    assert torch.equal(encode("woman", vision), first) and len(runs) == 2
    with pytest.raises(ValueError, match="encodes pictures with the CLIP vision model '.*', and none is connected"):
        encode("woman", None)


@pytest.mark.parametrize("kind", ["faceid", "faceid portrait", "faceid plus"])
def test_faceid_files_encode_a_face_embedding(kind: str, base: Path):
    adapter, about = load_from_drop_down(kind, base)
    assert f"IP-Adapter, kind {kind}" in about and "encodes pictures with a face embedding" in about
    face, picture = torch.randn(2, 512, generator=torch.Generator().manual_seed(1)), torch.rand(2, 40, 30, 3)
    vision = host.clip_vision(FEATURES, FEATURES) if kind == "faceid plus" else None

    def encode(face: Tensor | None, **options: Any) -> Tensor:
        return (
            SubjectEncode.execute(adapter, picture, "man", clip_vision=vision, face=face, **options).result[0].features
        )

    assert encode(face).shape == (1, TOKENS * host.SD15_CONTEXT)
    with pytest.raises(
        ValueError, match=r"computed NaN or infinity for 'man' from picture 2 of 2 with adapter 'ipadapter/"
    ):
        encode(torch.stack([face[0], torch.full((512,), torch.nan)]))
    assert not torch.equal(encode(face), encode(face.flip(1)))
    assert torch.equal(encode(face), encode(face, faceid_plus="1")) == (kind != "faceid plus")
    with pytest.raises(ValueError, match="none is connected. Connect 'Face Embedding"):
        encode(None)
    with pytest.raises(ValueError, match="512 wide, but the connected input gives 128"):
        encode(face[:, :128])
    if kind == "faceid plus":
        with pytest.raises(ValueError, match=r"1 face embedding\(s\), but 2 picture"):
            encode(face[:1])


REAL = {"sd15": (768, 768), "sdxl": (2048, 1280)}
"""Text width, and inner width of the published "plus" resampler."""


@pytest.mark.parametrize("name", list(REAL))
def test_files_of_the_published_size_fit_the_published_models(tmp_path: Path, name: str):
    text_width, inner = REAL[name]
    file = ip_files.nested("plus", ip_files.WIDTHS[name], 1280, text_width, tokens=16, inner=inner)
    adapter: Any = plan_ip_adapter(from_memory(tmp_path / "p.bin", flatten(file)), PLAIN).adapter
    paths = layers.layer_paths(host.build(*host.real_width(name), device="meta"), adapter.config)
    assert set(paths) > {spec.name for spec in adapter.config.layers}
    megabytes = 2 * sum(p.numel() for p in adapter.layers.parameters()) / 2**20
    assert round(megabytes) == {"sd15": 37, "sdxl": 650}[name]


@pytest.mark.slow
def test_two_people_without_masks_at_the_real_width_of_sd15(tmp_path: Path):
    """From a "plus" file and pictures to a picture; all weights random, so the picture has no content."""
    text_width, inner = REAL["sd15"]
    make = random(4)
    file = ip_files.nested("plus", ip_files.WIDTHS["sd15"], 1280, text_width, tokens=16, inner=inner, make=make)
    torch.save({part: {k: t.half() for k, t in tensors.items()} for part, tensors in file.items()}, tmp_path / "p.bin")
    patcher, header = adapters.open_adapter(tmp_path / "p.bin")
    adapter = LoadedAdapter(patcher, "p.bin", patcher.model.identity, header.licence, header.provenance)
    pictures = torch.zeros(2, 1, 64, 64, 3)
    pictures[0, ..., :32, :, 0], pictures[1, ..., 20:, :, 2] = 1, 1
    clip, vision = host.sd15_clip(768), host.clip_vision(1280, 1024)
    model, trace = ApplyMoA.execute(host.sd15(channels=320, context=768), adapter, 1.0).result

    def sample_pair(first: Tensor, second: Tensor) -> Tensor:
        pairs = ((first, "man"), (second, "woman"))
        encoded = [
            SubjectEncode.execute(adapter, picture, word, clip_vision=vision).result[0] for picture, word in pairs
        ]
        positive = MoATextEncode.execute(
            clip, "a man and a woman on a beach", {"subject_0": encoded[0], "subject_1": encoded[1]}
        ).result[0]
        return host.sample(model, positive, host.encode(clip, ""), host.empty_latent(16, 16), steps=3)

    forth = sample_pair(*pictures)
    assert forth.isfinite().all()
    assert set(trace.calls[-1].maps) == {spec.name for spec in patcher.model.config.layers}
    assert torch.equal(sample_pair(*pictures), forth)
    assert subjects.difference(forth, sample_pair(*pictures.flip(0))) > 1e-4
    comfy.model_management.unload_all_models()
    assert not comfy.model_management.current_loaded_models


def test_a_learned_router_is_refused_for_a_file_without_one(family: Imported):
    with pytest.raises(ValueError, match="has no learned routers"):
        choose_router("learned", family.adapter)


def test_other_families_are_refused(family: Imported):
    other = host.sdxl() if family.name == "sd15" else host.sd15()
    with pytest.raises(ValueError, match="Load a checkpoint of the adapter's family"):
        patch.apply_adapter(other, family.adapter.patcher, encoder="")


def test_moa_adapters_take_the_routers_without_training_too():
    family = subjects.make_family("sd15")
    learned = family.sample(family.attach(), family.prompt(subjects={MAN: 11}), steps=4)
    for router in ("attention", "constant"):
        model, trace = ApplyMoA.execute(family.model, family.adapter, 1.0, router=router).result
        picture = family.sample(model, family.prompt(subjects={MAN: 11}), steps=4)
        assert picture.isfinite().all() and subjects.difference(learned, picture) > 1e-3
        shares = [m.float() for call in trace.calls for m in call.maps.values()]
        assert (min(m.min() for m in shares) == 1) == (router == "constant")
