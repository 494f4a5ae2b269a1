"""Under the host's TorchCompileModel: one graph, no break in it, and the same results whatever changes between calls.

`MOA_COMPILER=inductor python dev.py test comfy -- -k compiled` generates code, too, which takes minutes and needs a compiler of C++.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import comfy.ldm.modules.attention as attention
import comfy.supported_models
import host
import pytest
import subjects
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_torch_compile import skip_torch_compile_dict
from comfyui_moa.moa_attention.run.budget import AutomaticBudget, Budget
from comfyui_moa.moa_attention.run.trace import Trace
from comfyui_moa.nodes.host.model import unet
from torch._dynamo.utils import counters

MAN = {4: 11}
COMPILER = os.environ.get("MOA_COMPILER", "eager")
ROUNDING = 1e-5 if COMPILER == "eager" else 1e-4
"""Generated code sums in another order."""
LEVELS: dict[str, Any] = {"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1]}
LEVELS |= {"transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1, 1]}


@pytest.fixture(scope="module", params=["SD15", "SDXL"])
def family(request: pytest.FixtureRequest) -> subjects.Family:
    """The kind of U-Net with seven transformer blocks only, as compiling a graph is slow."""
    if request.param == "SD15":
        context, pooled, layout = host.SD15_CONTEXT, None, host.sd15_layout(32, host.SD15_CONTEXT)
    else:
        context, pooled = host.SDXL_CONTEXT, host.SDXL_G
        layout = host.sdxl_layout(64, context, pooled)  # its heads have 64 channels
    model = host.patcher(getattr(comfy.supported_models, request.param), {**layout, **LEVELS})
    return subjects.Family("small", model, context, pooled, subjects.make_adapter(model, context))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Graphs are counted from nothing, with the attention of GPUs: the host's own for CPUs breaks graphs by itself."""
    for module in (attention, unet):
        monkeypatch.setattr(module, "optimized_attention", attention.attention_pytorch)
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compiled(model: Any) -> Any:
    """What core's TorchCompileModel makes of a model; without `MOA_COMPILER`, the graph is run as it is."""
    model = model.clone(disable_dynamic=True)
    options: Any = {"guard_filter_fn": skip_torch_compile_dict}
    set_torch_compile_wrapper(model, backend=COMPILER, options=options)
    return model


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


def test_changed_values_compile_no_new_graph_and_other_changes_compile_one(family: subjects.Family):
    base = compiled(family.model)

    def same(prompt: Any, **options: Any) -> None:
        got = family.sample(family.attach(base, **options), prompt, steps=1)
        assert subjects.difference(family.sample(family.attach(**options), prompt, steps=1), got) < ROUNDING

    same(family.prompt(subjects=MAN))
    assert graphs() == 1
    same(family.prompt(subjects={4: 12}))
    same(family.prompt(subjects={7: 12}, seed=8))
    same(family.prompt(subjects=MAN), prior_bias=0.7)
    assert graphs() == 1, "subject, prompt and strength are values"
    same(family.prompt(subjects=MAN), start=0.5)
    assert graphs() == 2, "a call without an active subject is another graph, once"
    same(family.prompt(subjects=MAN))
    same(family.prompt())
    same(family.prompt(subjects=MAN), budget=Budget(0.25))
    assert graphs() == 3
    assert not counters["graph_break"]


def test_a_trace_and_two_people_before_the_compiler(family: subjects.Family):
    prompt, traces = family.prompt(subjects={4: 11, 6: 12}), []
    for through in (compiled, lambda model: model):
        trace = Trace(family.adapter.patcher.model.config.layers)
        traces.append((family.sample(through(family.attach(observers=[trace])), prompt, steps=1), trace))
    (got, traced), (expected, plain) = traces
    assert subjects.difference(expected, got) < ROUNDING
    assert graphs() == 1 and not counters["graph_break"]
    for ours, theirs in zip(traced.calls, plain.calls, strict=True):
        assert ours.maps.keys() == theirs.maps.keys() and len(ours.maps) == 14
        assert all(torch.allclose(ours.maps[n].float(), theirs.maps[n].float(), atol=1e-3) for n in ours.maps)


def test_automatic_stays_dense_where_every_shape_would_compile_anew(family: subjects.Family):
    prompt, automatic = family.prompt(subjects=MAN), AutomaticBudget()
    got = family.sample(family.attach(compiled(family.model), budget=automatic), prompt, steps=2)
    assert graphs() == 1
    assert subjects.difference(family.sample(family.attach(), prompt, steps=2), got) < ROUNDING
