"""IP-Adapter files: recognised by their tensors, and computed by the published formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ip_files
import pytest
import torch
from routed import run as run_layer
from routed import spec
from torch import Tensor, nn

from moa_attention.adapters.base import Adapter
from moa_attention.adapters.ip_adapter import ImagePromptLayer, LowRankLayer, PromptTokens
from moa_attention.adapters.projections import HEAD, FacePlusProjection, FaceResampler, Resampler
from moa_attention.formats.errors import StoredFileError
from moa_attention.formats.ip_adapter.importing import flatten, plan_ip_adapter, recognise
from moa_attention.formats.registry import load_stored
from moa_attention.formats.tensors import StoredFile, from_memory
from moa_attention.method.expert import MATRICES, Projections
from moa_attention.method.factory import PLAIN
from moa_attention.method.layer import Routing

FACE, HUGE = "a face embedding (InsightFace's, 512 wide)", "CLIP-ViT-H-14"
PUBLISHED = [
    # kind, base, features, text, tokens, inner, depth -> requires, encoder
    ("base", "sd15", 1024, 768, 4, 0, 0, {"embedding": 1024}, HUGE),
    ("base", "sdxl", 1280, 2048, 4, 0, 0, {"embedding": 1280}, "CLIP-ViT-bigG-14"),
    ("base", "sdxl", 1024, 2048, 4, 0, 0, {"embedding": 1024}, HUGE),
    ("plus", "sd15", 1280, 768, 16, 768, 4, {"patches": 1280}, HUGE),
    ("plus", "sdxl", 1280, 2048, 16, 1280, 4, {"patches": 1280}, HUGE),
    ("full", "sd15", 1280, 768, 0, 1280, 0, {"patches": 1280}, HUGE),
    ("faceid", "sd15", 0, 768, 4, 0, 0, {"face": 512}, FACE),
    ("faceid", "sdxl", 0, 2048, 4, 0, 0, {"face": 512}, FACE),
    ("faceid portrait", "sd15", 0, 768, 16, 0, 0, {"face": 512}, FACE),
    (
        "instantid",
        "sdxl",
        0,
        2048,
        16,
        1280,
        4,
        {"raw_face": 512},
        "a face embedding that is not normalised (InsightFace's, 512 wide)",
    ),
    ("faceid plus", "sd15", 1280, 768, 4, 0, 4, {"face": 512, "patches": 1280}, f"{FACE} and {HUGE}"),
    ("faceid plus", "sdxl", 1280, 2048, 4, 0, 4, {"face": 512, "patches": 1280}, f"{FACE} and {HUGE}"),
]


def random(*shape: int) -> Tensor:
    return torch.randn(shape) / max(1, shape[-1]) ** 0.5


def stored(tensors: dict[str, Tensor]) -> StoredFile:
    return from_memory(Path("ip.bin"), tensors)


def imported(tensors: dict[str, Tensor]) -> Adapter:
    return load_stored(stored(tensors), PLAIN).adapter


@pytest.mark.parametrize(
    ("kind", "base", "features", "text", "tokens", "inner", "depth", "requires", "encoder"), PUBLISHED
)
def test_published_files_are_recognised(
    kind,
    base: str,
    features: int,
    text: int,
    tokens: int,
    inner: int,
    depth: int,
    requires: dict[str, int],
    encoder: str,
):
    file = ip_files.nested(kind, ip_files.WIDTHS[base], features, text, tokens=tokens, inner=inner, depth=depth)
    content = flatten(file)
    adapter, found = plan_ip_adapter(stored(content), PLAIN).adapter, recognise(stored(content))
    tuned = kind in ("faceid", "faceid plus")
    assert (found.name, found.base, adapter.requires) == (kind, base, requires)
    assert (found.tokens, found.text_width, found.rank) == (tokens, text, 128 if tuned else 0)
    assert adapter.config.image_encoder == encoder
    blocks = {"sd15": 16, "sdxl": 70}[base]
    assert adapter.config.depth == blocks and len(adapter.layers) == (2 if tuned else 1) * blocks
    layers = {spec.name: spec for spec in adapter.config.layers}
    assert layers["middle_0_0_attn2"].hidden == 1280 and layers["middle_0_0_attn2"].supervised
    first, last = adapter.config.layers[0], adapter.config.layers[-1]
    assert first.hidden == last.hidden == min(ip_files.WIDTHS[base]) and not first.supervised and not last.supervised
    assert [spec.depth for spec in adapter.config.layers if spec.is_cross] == list(range(blocks))
    assert all(spec.context == (text if spec.is_cross else spec.hidden) for spec in adapter.config.layers)


def test_the_middle_block_is_the_files_last():
    widths = [32] * 16
    file = flatten(ip_files.nested("base", widths, 24, 48, make=random))
    adapter = imported(file)
    assert all(not parameter.requires_grad for parameter in adapter.parameters())
    held = adapter.state_dict()
    for place, number in (("middle_0_0", 31), ("input_1_0", 1), ("output_3_0", 13)):
        for half in ("to_k", "to_v"):
            assert torch.equal(
                held[f"layers.{place}_attn2.{half}.weight"], file[f"ip_adapter.{number}.{half}_ip.weight"]
            )


def test_what_cannot_be_used_is_refused_by_what_was_found():
    with pytest.raises(StoredFileError, match=r"'ip.bin' is not an IP-Adapter: .* but a\."):
        recognise(stored({"a": torch.zeros(1)}))
    file = flatten(ip_files.nested("base", [32] * 16, 24, 48, make=random))
    strange = {k: t for k, t in file.items() if not k.startswith("image_proj")} | {"image_proj.eyes": torch.zeros(1)}
    with pytest.raises(StoredFileError, match="unknown kind: its image projection contains eyes"):
        recognise(stored(strange))
    with pytest.raises(StoredFileError, match="for 12 cross-attention layers; SD1.5 has 16 such layers, SDXL has 70"):
        recognise(stored(flatten(ip_files.nested("base", [32] * 12, 24, 48))))
    del file["ip_adapter.9.to_v_ip.weight"]
    with pytest.raises(StoredFileError, match="ip_adapter.9.to_v_ip.weight"):
        imported(file)
    face = flatten(ip_files.nested("faceid", [32] * 16, 0, 48, rank=2, make=random))
    del face["ip_adapter.9.to_v_lora.up.weight"]
    with pytest.raises(StoredFileError, match="ip_adapter.9.to_v_lora.up.weight"):
        imported(face)
    partly = {k: t for k, t in face.items() if not k.startswith("ip_adapter.4.")}
    with pytest.raises(StoredFileError, match="changes 15 of 16 self-attention layers"):
        imported(partly)


def in_the_unet(number: int) -> str:
    """Where diffusers' U-Net of SD1.5 holds the attention with this number in published files."""
    blocks = [f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)]
    blocks += [f"up_blocks.{i}.attentions.{j}" for i in range(1, 4) for j in range(3)] + ["mid_block.attentions.0"]
    return f"{blocks[number // 2]}.transformer_blocks.0.attn{number % 2 + 1}.processor"


def as_trained(file: dict[str, Tensor], form: str) -> dict[str, Tensor]:
    """The same tensors under the names that the published trainer, or its converted checkpoints, have."""
    found = {}
    for name, tensor in file.items():
        part, _, rest = name.partition(".")
        if part == "image_proj":
            found[name if form == "converted" else f"image_proj_model.{rest}"] = tensor
            continue
        number, _, rest = rest.partition(".")
        places = {
            "numbers": [f"adapter_modules.{number}.{rest}"],
            "unet": [f"unet.{in_the_unet(int(number))}.{rest}"],
            "both": [f"unet.{in_the_unet(int(number))}.{rest}", f"adapter_modules.{number}.{rest}"],
            "converted": [f"ip_adapter.{in_the_unet(int(number))}.{rest}"],
        }
        found |= dict.fromkeys(places[form.removeprefix("devices ")], tensor)
    found |= {} if form == "converted" else {"unet.conv_in.weight": torch.ones(4, 4, 3, 3)}
    return {f"module.{name}": t for name, t in found.items()} if form.startswith("devices") else found


@pytest.mark.parametrize("form", ["numbers", "unet", "both", "converted", "devices unet"])
@pytest.mark.parametrize("kind", ["plus", "faceid"])
def test_checkpoints_of_the_published_trainer_are_the_published_file(kind, form: str):
    torch.manual_seed(0)
    file = flatten(ip_files.nested(kind, [64] * 16, 24, 48, rank=2, make=random))
    wanted, found = imported(file), imported(as_trained(file, form))
    assert found.config == wanted.config
    assert found.state_dict().keys() == wanted.state_dict().keys()
    assert all(torch.equal(t, found.state_dict()[name]) for name, t in wanted.state_dict().items())


def test_a_missing_tensor_of_a_checkpoint_is_named_as_published_files_name_it():
    file = as_trained(flatten(ip_files.nested("plus", [64] * 16, 24, 48, make=random)), "unet")
    del file[f"unet.{in_the_unet(3)}.to_v_ip.weight"]
    with pytest.raises(StoredFileError, match="missing: ip_adapter.3.to_v_ip.weight"):
        imported(file)


class Prior(nn.Module):
    """The host's projections of one layer."""

    def __init__(self, width: int, text: int):
        super().__init__()
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = (nn.Linear(text, width, bias=False) for _ in range(2))
        self.to_out = nn.Linear(width, width)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return ((q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)


def published(z: Tensor, text: Tensor, image: Tensor, prior: Prior, layer: ImagePromptLayer, scale: float) -> Tensor:
    """IP-Adapter's decoupled cross-attention in one piece: W_o (A(Q, K, V) + scale · A(Q, K', V')), each W tuned or not."""

    def through(name: str, x: Tensor) -> Tensor:
        own = getattr(layer.low_rank, name, None)
        return getattr(prior, name)(x) + (0 if own is None else x @ own.down.weight.T @ own.up.weight.T)

    q, heads = through("to_q", z), layer.spec.heads
    words = attention(q, through("to_k", text), through("to_v", text), heads)
    return through("to_out", words + scale * attention(q, layer.to_k(image), layer.to_v(image), heads))


def setup(rank: int = 0) -> tuple[Tensor, Tensor, Tensor, Prior, ImagePromptLayer]:
    torch.manual_seed(0)
    layer = ImagePromptLayer(spec("middle_0_0_attn2", 0, 32, 48, 4, True), rank)
    return torch.randn(2, 12, 32), torch.randn(2, 7, 48), torch.randn(2, 2, 4, 48), Prior(32, 48), layer


def run(z: Tensor, text: Tensor, image: Tensor, prior: Prior, layer: ImagePromptLayer, shares: Tensor, **options):
    prior_only = prior.to_out(attention(prior.to_q(z), prior.to_k(text), prior.to_v(text), layer.spec.heads))
    return run_layer(
        layer, z, PromptTokens(text, image), prior_only, Projections.of(prior), (3, 4), shares=shares, **options
    )


@pytest.mark.parametrize(("scale", "rank"), [(1.0, 0), (0.6, 0), (1.0, 3), (1.5, 3)])
def test_one_subject_everywhere_is_the_published_formula(scale: float, rank: int):
    z, text, image, prior, layer = setup(rank)
    ours = run(z, text, image[:, :1], prior, layer, torch.full((2, 1, 12), scale))
    torch.testing.assert_close(ours, published(z, text, image[:, 0], prior, layer, scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 3])
def test_subjects_take_effect_only_where_they_have_a_share(rank: int):
    z, text, image, prior, layer = setup(rank)
    shares = torch.zeros(2, 2, 12)
    shares[:, 0, :4], shares[:, 1, 4:8] = 1, 1
    recorded: list[Routing] = []
    ours = run(z, text, image, prior, layer, shares, observe=lambda _spec, routing: recorded.append(routing))
    for part, subject in ((slice(0, 4), 0), (slice(4, 8), 1)):
        whole = published(z, text, image[:, subject], prior, layer, 1.0)
        torch.testing.assert_close(ours[:, part], whole[:, part], rtol=1e-5, atol=1e-5)
    prior_only = prior.to_out(attention(prior.to_q(z), prior.to_k(text), prior.to_v(text), layer.spec.heads))
    torch.testing.assert_close(ours[:, 8:], prior_only[:, 8:], rtol=0, atol=1e-6)
    assert torch.equal(recorded[0].personal, shares.amax(dim=1))


def test_the_resampler_reads_patches_with_learned_queries():
    torch.manual_seed(0)
    made = Resampler(features=10, tokens=3, inner=2 * HEAD, depth=2, expansion=4, width=12, factory=PLAIN)
    nn.init.normal_(made.latents)
    features = torch.randn(2, 5, 10)
    patches, latents = made.proj_in(features), made.latents.expand(2, -1, -1)
    layers: Any = made.layers
    for attention, feed in layers:
        x, q = attention.norm1(patches), attention.norm2(latents)
        keys = attention.to_kv(torch.cat([x, q], 1))
        rows = []
        for head in range(2):
            part = slice(head * HEAD, (head + 1) * HEAD)
            key, value = keys[..., : 2 * HEAD][..., part], keys[..., 2 * HEAD :][..., part]
            rows.append((attention.to_q(q)[..., part] @ key.transpose(1, 2) / HEAD**0.5).softmax(-1) @ value)
        latents = latents + attention.to_out(torch.cat(rows, -1))
        latents = latents + feed[3](nn.functional.gelu(feed[1](feed[0](latents))))
    torch.testing.assert_close(made(features), made.norm_out(made.proj_out(latents)), rtol=1e-5, atol=1e-5)


def test_a_tuned_self_attention_is_its_formula_where_it_has_the_share():
    torch.manual_seed(0)
    layer, prior = LowRankLayer(spec("middle_0_0_attn1", 0, 32, 32, 4, True), 3), Prior(32, 32)
    z = torch.randn(2, 12, 32)
    own = {name: getattr(layer.low_rank, name) for name in MATRICES}
    q, k, v = (
        getattr(prior, name)(z) + z @ own[name].down.weight.T @ own[name].up.weight.T
        for name in ("to_q", "to_k", "to_v")
    )
    attended = attention(q, k, v, 4)
    tuned = prior.to_out(attended) + attended @ own["to_out"].down.weight.T @ own["to_out"].up.weight.T
    prior_only = prior.to_out(attention(prior.to_q(z), prior.to_k(z), prior.to_v(z), 4))
    shares = torch.zeros(2, 1, 12)
    shares[..., :6] = 1
    ours = run_layer(layer, z, z, prior_only, Projections.of(prior), (3, 4), shares=shares)
    torch.testing.assert_close(ours[:, :6], tuned[:, :6], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours[:, 6:], prior_only[:, 6:])
    assert (tuned - prior_only).abs().max() > 1e-2


def test_instantid_reads_a_face_as_one_patch():
    torch.manual_seed(0)
    made = FaceResampler(8, 3, 2 * HEAD, 2, 4, 12, PLAIN)
    nn.init.normal_(made.latents)
    plain = Resampler(8, 3, 2 * HEAD, 2, 4, 12, PLAIN)
    plain.load_state_dict(made.state_dict())
    face = torch.randn(2, 8)
    assert torch.equal(made(face), plain(face[:, None])) and made(face).shape == (2, 3, 12)


@pytest.mark.parametrize("shortcut", [0.0, 1.0])
def test_face_tokens_read_patches_and_in_version_2_pass_by(shortcut: float):
    torch.manual_seed(0)
    made = FacePlusProjection(8, 16, 10, 2, 4, 3, 2 * HEAD, PLAIN)
    face, patches = torch.randn(2, 8), torch.randn(2, 5, 10)
    tokens = made.norm(made.proj[2](nn.functional.gelu(made.proj[0](face))).view(2, 3, 2 * HEAD))
    queries, keys = tokens, made.perceiver_resampler.proj_in(patches)
    layers: Any = made.perceiver_resampler.layers
    for reading, feed in layers:
        queries = reading(keys, queries) + queries
        queries = feed(queries) + queries
    read = made.perceiver_resampler.norm_out(made.perceiver_resampler.proj_out(queries))
    torch.testing.assert_close(made(face, patches, shortcut=shortcut), shortcut * tokens + read)
