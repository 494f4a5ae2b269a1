"""The short form of the sweep over other nodes (tests/neighbours): the host's own nodes before and after Apply MoA."""

from __future__ import annotations

import asyncio
import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy_extras
import pytest
from comfy_extras import nodes_custom_sampler

sys.path.append(str(Path(__file__).resolve().parents[1] / "neighbours"))

from host_models import SETTINGS, on_models  # noqa: E402
from host_prompts import host_prompts  # noqa: E402
from host_samplers import host_samplers  # noqa: E402
from judging import judge  # noqa: E402
from scene import Neighbour, Scene, make_scene  # noqa: E402

MODELS = {
    "APG": "apg", "CFGNorm": "cfg", "CFGZeroStar": "cfg", "EasyCache": "easycache",
    "Epsilon Scaling": "eps", "FreSca": "fresca", "FreeU_V2": "freelunch", "HyperTile": "hypertile", "Mahiro": "mahiro",
    "NAGuidance": "nag", "PatchModelAddDownscale": "model_downscale", "PerpNeg": "perpneg", "PerturbedAttentionGuidance": "pag",
    "RenormCFG": "lumina2", "RescaleCFG": "model_advanced", "SelfAttentionGuidance": "sag", "SkipLayerGuidanceDiTSimple": "slg",
    "TCFG": "tcfg", "TemporalScoreRescaling": "eps", "TomePatchModel": "tomesd", "UNetCrossAttentionMultiply": "attention_multiply",
}  # fmt: skip
"""Nodes that change what SD1.5 and SDXL sample, and their modules."""
OTHER_MODULES = ("custom_sampler", "differential_diffusion", "hooks", "ip2p")
WITHOUT_EFFECT = {("sdxl", "TomePatchModel"): "it merges at full resolution only, where SDXL has no attention"}
SHALLOW = 2
"""Blocks of each of SDXL's deepest transformers here; the sweep has all ten."""
NEWER = {"DualModelGuider": hasattr(nodes_custom_sampler, "DualModelGuider")}
"""Which nodes that not every supported host has are there."""
OTHERS = [
    n for n in (*host_prompts(), *host_samplers()) if not n.name.startswith("sampler ") and NEWER.get(n.name, True)
]
SAMPLERS = [n for n in host_samplers() if n.name.startswith("sampler ")]


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def scene(request: pytest.FixtureRequest) -> Scene:
    return make_scene(request.param, SHALLOW)


@pytest.fixture(scope="module")
def nodes() -> dict[str, Any]:
    """The host's nodes by their ids, as far as they are needed here."""
    module = importlib.import_module("nodes")
    for name in {*MODELS.values(), *OTHER_MODULES}:
        file = Path(comfy_extras.__path__[0], f"nodes_{name}.py")
        if file.exists():
            assert asyncio.run(module.load_custom_node(str(file), module_parent="comfy_extras"))
    return module.NODE_CLASS_MAPPINGS


def cells(scene: Scene, neighbour: Neighbour) -> set[str]:
    return {cell.text for cell in judge(scene, neighbour)}


@pytest.mark.parametrize("name", MODELS)
def test_a_node_on_the_model(scene: Scene, nodes: dict[str, Any], name: str):
    if name not in nodes:
        pytest.skip("this host does not have the node")
    (neighbour,) = on_models({name: nodes[name]}, SETTINGS)
    idle = (scene.family.name, name) in WITHOUT_EFFECT
    assert cells(scene, neighbour) == {"no effect" if idle else "exact, kept"}


@pytest.mark.parametrize("name", ["RenormCFG", "TemporalScoreRescaling"])
def test_two_nodes_of_the_host_fail_with_several_pictures_by_themselves(scene: Scene, nodes: dict[str, Any], name: str):
    if name not in nodes:
        pytest.skip("this host does not have the node")
    (neighbour,) = on_models({name: nodes[name]}, SETTINGS)
    (text,) = cells(scene, replace(neighbour, size=(8, 8, 2)))
    assert text.startswith("n/a: RuntimeError: Boolean value of Tensor with more than one value is ambiguous")


@pytest.mark.usefixtures("nodes")
@pytest.mark.parametrize("neighbour", OTHERS, ids=lambda n: n.name)
def test_a_node_on_prompts_or_latents_and_a_guider(scene: Scene, neighbour: Neighbour):
    if scene.family.name not in neighbour.missing:
        assert cells(scene, neighbour) == {"exact, kept"}


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda n: n.name)
@pytest.mark.parametrize("scene", ["sd15"], indirect=True)
def test_a_sampler(scene: Scene, sampler: Neighbour):
    assert cells(scene, sampler) == {"exact, kept"}
