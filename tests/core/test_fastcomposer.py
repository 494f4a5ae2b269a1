"""FastComposer's file: recognised by its tensors, each of which lands in its place, and fused by the published formula."""

from __future__ import annotations

import json
from pathlib import Path

import fastcomposer_files as files
import pytest
import torch
import torch.nn.functional as F
from routed import run
from torch import Tensor

from moa_attention import load_adapter, save_adapter
from moa_attention.formats.config import config_from_json, config_to_json
from moa_attention.formats.errors import StoredFileError
from moa_attention.formats.fastcomposer import import_fastcomposer, plan_fastcomposer
from moa_attention.formats.plan import check_fit
from moa_attention.formats.tensors import StoredFile, from_memory
from moa_attention.method.expert import Projections


@pytest.fixture(scope="module")
def tiny() -> dict[str, Tensor]:
    return files.tensors(files.TINY, files.random(0))


def stored(tensors: dict[str, Tensor]) -> StoredFile:
    return from_memory(Path("pytorch_model.bin"), tensors)


def count(tensors: dict[str, Tensor], part: str) -> int:
    return sum(t.numel() for name, t in tensors.items() if name.startswith(part) and "position_ids" not in name)


def test_the_file_of_the_published_size():
    file = files.tensors(files.Widths())
    assert sum(name.startswith("unet.") for name in file) == 686
    assert count(file, "unet.") == 859_520_964  # SD1.5's U-Net
    assert count(file, "image_encoder.vision_model.") == 303_179_776 and count(file, "text_encoder.") == 123_060_480
    plan = plan_fastcomposer(stored(file))
    adapter = plan.adapter
    check_fit(stored(file), adapter.state_dict(), plan.sources, plan.kind)
    config, layers = adapter.config, {spec.name: spec for spec in adapter.config.layers}
    assert (config.base, config.text_width, config.image_width, config.encoder_width) == ("sd15", 768, 768, 1024)
    assert config.image_encoder == "clip-vit-large-patch14" and not adapter.has_routers
    assert len(layers) == 32 and config.depth == 16 and all(spec.heads == 8 for spec in config.layers)
    assert [spec.hidden for spec in config.layers[::2]] == [320] * 2 + [640] * 2 + [1280] * 6 + [640] * 3 + [320] * 3
    assert sum(not spec.supervised for spec in config.layers) == 10
    assert round(sum(p.numel() for p in adapter.layers.parameters()) / 1e6, 1) == 93.5


@pytest.mark.parametrize("prefix", ["", "module."])
def test_every_tensor_lands_where_it_belongs(prefix: str):
    file = files.tensors(files.TINY, files.random(0), prefix)
    adapter = import_fastcomposer(stored(file))
    assert all(not parameter.requires_grad for parameter in adapter.parameters())
    held = adapter.state_dict()
    places = {
        "layers.input_1_0_attn1.to_q.weight": "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight",
        "layers.input_8_0_attn2.to_k.weight": "unet.down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_k.weight",
        "layers.middle_0_0_attn2.to_v.weight": "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight",
        "layers.output_3_0_attn1.to_out.bias": "unet.up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.bias",
        "layers.output_11_0_attn2.to_out.weight": (
            "unet.up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.weight"
        ),
        "fusion.mlp1.fc1.weight": "postfuse_module.mlp1.fc1.weight",
        "fusion.layer_norm.bias": "postfuse_module.layer_norm.bias",
        "tail.layers.0.self_attn.q_proj.bias": "image_encoder.vision_model.encoder.layers.22.self_attn.q_proj.bias",
        "tail.layers.1.mlp.fc2.weight": "image_encoder.vision_model.encoder.layers.23.mlp.fc2.weight",
        "tail.post_layernorm.weight": "image_encoder.vision_model.post_layernorm.weight",
        "tail.visual_projection.weight": "image_encoder.visual_projection.weight",
    }
    for ours, theirs in places.items():
        assert torch.equal(held[ours], file[prefix + theirs]), ours
    used = {(t.shape, float(t.double().sum())) for t in held.values()}
    parts = (".attn1.", ".attn2.", "postfuse_module.")
    wanted = [name for name in file if any(part in name for part in parts)]
    assert len(used) == len(held) == 2 * 16 + 3 + 16 * 2 * 5 + 14
    assert len(wanted) == 16 * 2 * 5 + 14
    assert all((file[name].shape, float(file[name].double().sum())) in used for name in wanted)
    assert not {t.data_ptr() for t in held.values()} & {t.data_ptr() for t in file.values()}


def published(f: dict[str, Tensor], text: Tensor, image: Tensor) -> Tensor:
    """FastComposer's post-fuse module, line by line."""

    def mlp(name: str, x: Tensor) -> Tensor:
        weights = {k.removeprefix(f"postfuse_module.{name}."): t.float() for k, t in f.items()}
        x = F.layer_norm(x, x.shape[-1:], weights["layernorm.weight"], weights["layernorm.bias"])
        x = x @ weights["fc1.weight"].T + weights["fc1.bias"]
        x = x * 0.5 * (1 + torch.erf(x / 2**0.5))
        return x @ weights["fc2.weight"].T + weights["fc2.bias"]

    x = mlp("mlp1", torch.cat([text, image], -1)) + text
    x = mlp("mlp2", x) + x
    weight, bias = (f[f"postfuse_module.layer_norm.{half}"].float() for half in ("weight", "bias"))
    return F.layer_norm(x, x.shape[-1:], weight, bias)


def test_fusion_is_the_published_formula_for_every_layer_and_timestep(tiny: dict[str, Tensor]):
    torch.manual_seed(0)
    features, words, t = (
        torch.randn(2, 3, files.TINY.image),
        torch.randn(2, 3, files.TINY.text),
        torch.tensor([3.0, 900]),
    )
    tokens = import_fastcomposer(stored(tiny)).float().fusion(features, words, t, 16)
    assert tokens.shape == (16, 2, 3, files.TINY.text) and tokens.stride(0) == 0
    torch.testing.assert_close(tokens[7], published(tiny, words, features), rtol=1e-5, atol=1e-5)


def test_written_and_read_again_it_is_the_same(tiny: dict[str, Tensor], tmp_path: Path):
    adapter, path = import_fastcomposer(stored(tiny)), tmp_path / "a.safetensors"
    save_adapter(adapter, path, licence="MIT", provenance={}, dtype=torch.float16)
    again = load_adapter(path)
    assert again.config == adapter.config
    held = adapter.state_dict()
    assert held.keys() == again.state_dict().keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in again.state_dict().items())


def test_headers_of_earlier_versions_keep_their_meaning(tiny: dict[str, Tensor]):
    fields = json.loads(config_to_json(import_fastcomposer(stored(tiny)).config))
    for name in ("router", "fusion", "encoder_tail", "encoder_width"):
        del fields[name]
    old = config_from_json(json.dumps(fields))
    assert (old.router, old.fusion, old.encoder_tail) == ("linear", "moa", 0)


def test_a_layer_without_a_router_requires_the_shares(tiny: dict[str, Tensor]):
    layer = import_fastcomposer(stored(tiny)).float().layers["input_1_0_attn1"]
    same = torch.nn.Identity()
    z, grid, base = torch.randn(1, 12, 32), (3, 4), Projections(same, same, same, same)
    assert torch.equal(run(layer, z, z, z, base, grid, shares=torch.zeros(1, 1, 12)), z)
    with pytest.raises(ValueError, match="input_1_0_attn1 has no router of its own"):
        run(layer, z, z, z, base, grid)


def test_other_and_incomplete_files_are_refused_by_what_was_found(tiny: dict[str, Tensor]):
    def refused(file: dict[str, Tensor], message: str) -> None:
        with pytest.raises(StoredFileError, match=message):
            import_fastcomposer(stored(file))

    refused(
        {}, r"'pytorch_model.bin' is not a FastComposer model: it has no 'postfuse_module.mlp1.fc1.weight', but nothing"
    )
    unet = {name.removeprefix("unet."): t for name, t in tiny.items() if name.startswith("unet.")}
    refused(unet, r"is not a FastComposer model: .* but conv_in.bias, conv_in.weight, .* mit-han-lab/fastcomposer")
    for name in (
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0.bias",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_k.weight",
        "postfuse_module.mlp2.fc2.bias",
        "image_encoder.vision_model.encoder.layers.23.layer_norm2.weight",
        "image_encoder.visual_projection.weight",
    ):
        refused({k: t for k, t in tiny.items() if k != name}, f"lacks '{name}'")
    refused(
        {**tiny, "postfuse_module.mlp1.fc1.bias": torch.zeros(3)},
        r"does not contain the tensors of a FastComposer model: of another shape: postfuse_module.mlp1.fc1.bias \(3,\)",
    )
    other = "unet.down_blocks.3.attentions.0.transformer_blocks.0.attn2.to_q.weight"
    refused(
        {**tiny, other: torch.zeros(1)},
        "not SD1.5's: it has 17 blocks .* one of them unet.down_blocks.3.attentions.0; SD1.5 has 16",
    )
    deep = "unet.mid_block.attentions.0.transformer_blocks.1.attn2.to_q.weight"
    refused({**tiny, deep: torch.zeros(1)}, "some with several transformers")
