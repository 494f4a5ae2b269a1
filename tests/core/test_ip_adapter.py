"""IP-Adapter files: recognised by their tensors, and computed by the published formula."""

from __future__ import annotations

from typing import Any

import ip_files
import pytest
import torch
from torch import Tensor, nn

from moa_attention.checkpoint import AdapterFileError
from moa_attention.config import LayerSpec
from moa_attention.expert import Projections
from moa_attention.face_projection import FacePlusProjection
from moa_attention.image_prompt import ImagePromptLayer, Prompts
from moa_attention.importers.ip_adapter import flatten, import_ip_adapter, recognise
from moa_attention.layer import Routing
from moa_attention.projection import HEAD, Place, Resampler
from moa_attention.tuned import TunedLayer

FACE, HUGE = "a face embedding (InsightFace's, 512 wide)", "CLIP-ViT-H-14"
PUBLISHED = [
    # kind, base, seen, text, tokens, inner, depth -> sees, encoder
    ("base", "sd15", 1024, 768, 4, 0, 0, {"embedding": 1024}, HUGE),
    ("base", "sdxl", 1280, 2048, 4, 0, 0, {"embedding": 1280}, "CLIP-ViT-bigG-14"),
    ("base", "sdxl", 1024, 2048, 4, 0, 0, {"embedding": 1024}, HUGE),
    ("plus", "sd15", 1280, 768, 16, 768, 4, {"patches": 1280}, HUGE),
    ("plus", "sdxl", 1280, 2048, 16, 1280, 4, {"patches": 1280}, HUGE),
    ("full", "sd15", 1280, 768, 0, 1280, 0, {"patches": 1280}, HUGE),
    ("faceid", "sd15", 0, 768, 4, 0, 0, {"face": 512}, FACE),
    ("faceid", "sdxl", 0, 2048, 4, 0, 0, {"face": 512}, FACE),
    ("faceid portrait", "sd15", 0, 768, 16, 0, 0, {"face": 512}, FACE),
    ("faceid plus", "sd15", 1280, 768, 4, 0, 4, {"face": 512, "patches": 1280}, f"{FACE} and {HUGE}"),
    ("faceid plus", "sdxl", 1280, 2048, 4, 0, 4, {"face": 512, "patches": 1280}, f"{FACE} and {HUGE}"),
]


def random(*shape: int) -> Tensor:
    return torch.randn(shape) / max(1, shape[-1]) ** 0.5


@pytest.mark.parametrize(("kind", "base", "seen", "text", "tokens", "inner", "depth", "sees", "encoder"), PUBLISHED)
def test_published_files_are_recognised(
    kind, base: str, seen: int, text: int, tokens: int, inner: int, depth: int, sees: dict[str, int], encoder: str
):
    file = ip_files.nested(kind, ip_files.WIDTHS[base], seen, text, tokens=tokens, inner=inner, depth=depth)
    adapter, found = import_ip_adapter(flatten(file))
    tuned = kind in ("faceid", "faceid plus")
    assert found == (kind, base, sees, tokens, text, 128 if tuned else 0)
    assert found.encoder == adapter.config.image_encoder == encoder
    blocks = {"sd15": 16, "sdxl": 70}[base]
    assert adapter.config.depth == blocks and len(adapter.layers) == (2 if tuned else 1) * blocks
    layers = {spec.name: spec for spec in adapter.config.layers}
    assert layers["middle_0_0_attn2"].hidden == 1280 and layers["middle_0_0_attn2"].supervised
    first, last = adapter.config.layers[0], adapter.config.layers[-1]
    assert first.hidden == last.hidden == min(ip_files.WIDTHS[base]) and not first.supervised and not last.supervised
    assert [spec.depth for spec in adapter.config.layers if spec.is_cross] == list(range(blocks))
    assert all(spec.context == (text if spec.is_cross else spec.hidden) for spec in adapter.config.layers)
    assert all(not parameter.requires_grad for parameter in adapter.parameters())


def test_the_middle_block_is_the_files_last():
    widths = [32] * 16
    file = flatten(ip_files.nested("base", widths, 24, 48, make=random))
    held = import_ip_adapter(file)[0].state_dict()
    for place, number in (("middle_0_0", 31), ("input_1_0", 1), ("output_3_0", 13)):
        for half in ("to_k", "to_v"):
            assert torch.equal(
                held[f"layers.{place}_attn2.{half}.weight"], file[f"ip_adapter.{number}.{half}_ip.weight"]
            )


def test_what_cannot_be_used_is_refused_by_what_was_found():
    with pytest.raises(AdapterFileError, match=r"Not an IP-Adapter: .* but a ..."):
        recognise({"a": torch.zeros(1)})
    file = flatten(ip_files.nested("base", [32] * 16, 24, 48, make=random))
    strange = {k: t for k, t in file.items() if not k.startswith("image_proj")} | {"image_proj.eyes": torch.zeros(1)}
    with pytest.raises(AdapterFileError, match="unknown kind: its image projection holds eyes"):
        recognise(strange)
    with pytest.raises(AdapterFileError, match="for 12 cross-attention layers and text 48 wide"):
        recognise(flatten(ip_files.nested("base", [32] * 12, 24, 48)))
    del file["ip_adapter.9.to_v_ip.weight"]
    with pytest.raises(AdapterFileError, match="ip_adapter.9.to_v_ip.weight"):
        import_ip_adapter(file)
    face = flatten(ip_files.nested("faceid", [32] * 16, 0, 48, rank=2, make=random))
    del face["ip_adapter.9.to_v_lora.up.weight"]
    with pytest.raises(AdapterFileError, match="ip_adapter.9.to_v_lora.up.weight"):
        import_ip_adapter(face)
    partly = {k: t for k, t in face.items() if not k.startswith("ip_adapter.4.")}
    with pytest.raises(AdapterFileError, match="tunes 15 of 16 self-attentions"):
        import_ip_adapter(partly)


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
        own = getattr(layer.tuned, name, None)
        return getattr(prior, name)(x) + (0 if own is None else x @ own.down.weight.T @ own.up.weight.T)

    q, heads = through("to_q", z), layer.spec.heads
    words = attention(q, through("to_k", text), through("to_v", text), heads)
    return through("to_out", words + scale * attention(q, layer.to_k(image), layer.to_v(image), heads))


def setup(rank: int = 0) -> tuple[Tensor, Tensor, Tensor, Prior, ImagePromptLayer]:
    torch.manual_seed(0)
    layer = ImagePromptLayer(LayerSpec("middle_0_0_attn2", 0, 32, 48, 4, True), Place(), rank)
    return torch.randn(2, 12, 32), torch.randn(2, 7, 48), torch.randn(2, 2, 4, 48), Prior(32, 48), layer


def run(z: Tensor, text: Tensor, image: Tensor, prior: Prior, layer: ImagePromptLayer, shares: Tensor, **options):
    nobody = prior.to_out(attention(prior.to_q(z), prior.to_k(text), prior.to_v(text), layer.spec.heads))
    return layer(z, Prompts(text, image), nobody, Projections.of(prior), (3, 4), shares=shares, **options)


@pytest.mark.parametrize(("scale", "rank"), [(1.0, 0), (0.6, 0), (1.0, 3), (1.5, 3)])
def test_one_subject_everywhere_is_the_published_formula(scale: float, rank: int):
    z, text, image, prior, layer = setup(rank)
    ours = run(z, text, image[:, :1], prior, layer, torch.full((2, 1, 12), scale))
    torch.testing.assert_close(ours, published(z, text, image[:, 0], prior, layer, scale), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 3])
def test_subjects_speak_only_where_they_have_a_share(rank: int):
    z, text, image, prior, layer = setup(rank)
    shares = torch.zeros(2, 2, 12)
    shares[:, 0, :4], shares[:, 1, 4:8] = 1, 1
    seen: list[Routing] = []
    ours = run(z, text, image, prior, layer, shares, observe=lambda _spec, routing: seen.append(routing))
    for part, subject in ((slice(0, 4), 0), (slice(4, 8), 1)):
        whole = published(z, text, image[:, subject], prior, layer, 1.0)
        torch.testing.assert_close(ours[:, part], whole[:, part], rtol=1e-5, atol=1e-5)
    nobody = prior.to_out(attention(prior.to_q(z), prior.to_k(text), prior.to_v(text), layer.spec.heads))
    torch.testing.assert_close(ours[:, 8:], nobody[:, 8:], rtol=0, atol=1e-6)
    assert torch.equal(seen[0].personal, shares.amax(dim=1))


def test_the_resampler_reads_patches_with_learned_queries():
    torch.manual_seed(0)
    made = Resampler(seen=10, tokens=3, inner=2 * HEAD, depth=2, expansion=4, width=12, place=Place())
    nn.init.normal_(made.latents)
    seen = torch.randn(2, 5, 10)
    patches, latents = made.proj_in(seen), made.latents.expand(2, -1, -1)
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
    torch.testing.assert_close(made(seen), made.norm_out(made.proj_out(latents)), rtol=1e-5, atol=1e-5)


def test_a_tuned_self_attention_is_its_formula_where_it_speaks():
    torch.manual_seed(0)
    layer, prior = TunedLayer(LayerSpec("middle_0_0_attn1", 0, 32, 32, 4, True), 3, Place()), Prior(32, 32)
    z = torch.randn(2, 12, 32)
    own = {name: getattr(layer.tuned, name) for name in Projections._fields}
    q, k, v = (
        getattr(prior, name)(z) + z @ own[name].down.weight.T @ own[name].up.weight.T
        for name in ("to_q", "to_k", "to_v")
    )
    seen = attention(q, k, v, 4)
    tuned = prior.to_out(seen) + seen @ own["to_out"].down.weight.T @ own["to_out"].up.weight.T
    nobody = prior.to_out(attention(prior.to_q(z), prior.to_k(z), prior.to_v(z), 4))
    shares = torch.zeros(2, 1, 12)
    shares[..., :6] = 1
    ours = layer(z, z, nobody, Projections.of(prior), (3, 4), shares=shares)
    torch.testing.assert_close(ours[:, :6], tuned[:, :6], rtol=1e-5, atol=1e-5)
    assert torch.equal(ours[:, 6:], nobody[:, 6:])
    assert (tuned - nobody).abs().max() > 1e-2


@pytest.mark.parametrize("shortcut", [0.0, 1.0])
def test_face_tokens_read_patches_and_in_version_2_pass_by(shortcut: float):
    torch.manual_seed(0)
    made = FacePlusProjection(8, 16, 10, 2, 4, 3, 2 * HEAD, Place())
    face, patches = torch.randn(2, 8), torch.randn(2, 5, 10)
    tokens = made.norm(made.proj[2](nn.functional.gelu(made.proj[0](face))).view(2, 3, 2 * HEAD))
    queries, seen = tokens, made.perceiver_resampler.proj_in(patches)
    layers: Any = made.perceiver_resampler.layers
    for reading, feed in layers:
        queries = reading(seen, queries) + queries
        queries = feed(queries) + queries
    read = made.perceiver_resampler.norm_out(made.perceiver_resampler.proj_out(queries))
    torch.testing.assert_close(made(face, patches, shortcut=shortcut), shortcut * tokens + read)
