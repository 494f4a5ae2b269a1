"""A new kind of adapter and a new router: one registration each, then the real nodes load, encode, apply and sample them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import folder_paths
import host
import pytest
import subjects
import torch
import toy_kind
from comfyui_moa.moa_attention.formats.registry import FORMATS, AdapterFormat, register_format
from comfyui_moa.moa_attention.routers import ROUTERS, register_router
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.encode import SubjectEncode
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.model.unet import attention_layers, unet_of
from comfyui_moa.nodes.host.prompts.subject_context import Binding, with_subjects
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.sockets import Subject
from safetensors.torch import save_file

MAN = 3


@pytest.fixture
def registered() -> Iterator[None]:
    """Both kinds, as a pack would add them; gone afterwards."""
    formats, routers = dict(FORMATS), dict(ROUTERS)
    register_format("toy", AdapterFormat(toy_kind.recognises, toy_kind.plan))
    register_router("left", toy_kind.LeftRouter)
    yield
    for registry, before in ((FORMATS, formats), (ROUTERS, routers)):
        registry.clear()
        registry.update(before)


@pytest.fixture
def file(base: Path) -> Iterator[str]:
    """A toy adapter in models/moa, by its name in the drop-down."""
    del base
    register_adapter_folders()
    family = subjects.make_family("sd15")
    layers = {layer.spec.name: layer.spec for layer in attention_layers(unet_of(family.model.model))}
    spec = layers[toy_kind.LAYER]
    folder = Path(folder_paths.get_folder_paths("moa")[0])
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy.safetensors"
    tint = torch.randn(spec.hidden, 3, generator=torch.Generator().manual_seed(0))
    header = {"format": toy_kind.FORMAT, "depth": str(spec.depth), "text": str(spec.context), "heads": str(spec.heads)}
    save_file({f"layers.{toy_kind.LAYER}.tint.weight": tint}, path, metadata=header)
    yield path.name
    path.unlink()


def prompt(family: subjects.Family, subject: Subject) -> host.Conditioning:
    [[context, extra]] = host.conditioning(family.context, seed=1)
    bindings = [Binding(subject, MAN)]
    return [with_subjects(context, extra, bindings)]


def test_a_new_kind_and_a_new_router_work_in_the_nodes(registered: None, file: str):
    family = subjects.make_family("sd15")
    adapter, about = LoadMoAAdapter.execute(file).result
    assert isinstance(adapter.patcher.model, toy_kind.TintAdapter) and "imported: a toy" in about
    picture = torch.rand(1, 16, 16, 3, generator=torch.Generator().manual_seed(1))
    subject = subjects.first(SubjectEncode.execute(adapter, picture, "man"))
    torch.testing.assert_close(subject.features, picture.mean(dim=(1, 2)), rtol=1e-5, atol=1e-5)
    assert "left" in next(i for i in ApplyMoA.define_schema().inputs if i.id == "router").options

    def sample(strength: float, router: str) -> tuple[torch.Tensor, torch.Tensor]:
        patched, trace = ApplyMoA.execute(family.model, adapter, strength, router=router, pixels="all").result
        latent = family.sample(patched, prompt(family, subject), size=(64, 64), steps=1)
        return latent, trace.calls[0].maps[toy_kind.LAYER][0] if trace.calls else torch.zeros(0)

    base, _ = sample(0.0, "left")
    assert torch.equal(base, family.sample(family.model, family.prompt(), size=(64, 64), steps=1))
    changed, share = sample(1.0, "left")
    everywhere, full = sample(1.0, "constant")
    assert not torch.equal(changed, base) and not torch.equal(changed, everywhere)
    assert full.min() == 1
    quarter = share.shape[-1] // 4  # the router's map is coarser than the layer's
    assert share[:, :quarter].min() == 1 and share[:, -quarter:].max() == 0
