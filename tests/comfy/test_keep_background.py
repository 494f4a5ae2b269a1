"""Keep background in the host's own samplers: the base model's own predictions where no subject has a share, beside any CFG node."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import comfy.sample
import comfy.samplers
import cutters
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.routers import ConstantRouter, MaskRouter, WordRouter
from comfyui_moa.moa_attention.run.guidance import SubjectGuidance
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.sockets import SubjectSettings
from subjects import Family
from torch import Tensor

MAN, TWO = {4: 11}, {4: 11, 9: 12}
NOWHERE, EVERYWHERE = (2.0, 3.0), (-2.0, -1.0)
"""Ramps at which w is 0, and 1, whatever the shares are."""


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


@pytest.fixture(scope="module")
def small() -> Family:
    return subjects.make_family("sd15")


def guided(family: Family, ramp: tuple[float, float] = (0.1, 0.3), model: Any = None, **options: Any) -> Any:
    """A model that keeps the background."""
    strength = options.pop("strength", 1.0)
    guidance = SubjectGuidance(strength, family.adapter.patcher.model.config.layers, ramp)
    return family.attach(model, guidance=guidance, **options)


def in_half(family: Family, pictures: dict[int, int]) -> Any:
    """A prompt whose subjects have the left half of the picture."""
    region = torch.zeros(64, 64)
    region[:, :32] = 1
    return family.prompt(subjects=pictures, settings=SubjectSettings(region=region))


class Watch:
    """The rows of every call, and what the U-Net of the plain base model makes of the same inputs."""

    def __init__(self, family: Family, model: Any):
        self.family, self.calls = family, []
        self.model = model.clone()
        self.model.set_model_unet_function_wrapper(self.call)
        self.model.set_model_sampler_post_cfg_function(self.step)
        self.steps: list[tuple[Tensor, Tensor]] = []

    def call(self, apply: Callable[..., Tensor], given: dict) -> Tensor:
        x, t, c = given["input"], given["timestep"], given["c"]
        made = apply(x, t, **c)
        bare = {name: value for name, value in c.items() if not name.startswith("moa_")}
        base = apply(x, t, **{**bare, "transformer_options": {}})
        self.calls.append((given["cond_or_uncond"], made, base))
        return made

    def step(self, given: dict) -> Tensor:
        self.steps.append((given["denoised"], given["uncond_denoised"]))
        return given["denoised"]


ROUTERS: dict[str, Any] = {
    "learned": lambda: None,
    "mask": MaskRouter,
    "constant": ConstantRouter,
    "attention": WordRouter,
}


@pytest.mark.parametrize("router", ROUTERS)
def test_where_no_subject_had_a_share_the_result_is_the_base_models_bit_for_bit(family: Family, router: str):
    watch = Watch(family, guided(family, router=ROUTERS[router]()))
    found = family.sample(watch.model, in_half(family, TWO), steps=3, size=(16, 16))
    base = family.sample(family.model, family.prompt(), steps=3, size=(16, 16))
    assert len(watch.calls) == len(watch.steps) == 6
    kept, changed = torch.ones(4, 16, 16, dtype=torch.bool), []
    for (lists, made, plain), now, first in zip(watch.calls[3:], watch.steps[3:], watch.steps, strict=False):
        personal, prior, other = (lists.index(number) for number in (0, 2, 1))
        assert torch.equal(made[[prior, other]], plain[[prior, other]])
        outside = made[personal] == made[prior]
        kept &= outside.all(dim=0)
        assert all(torch.equal(second[0][kept], before[0][kept]) for second, before in zip(now, first, strict=True))
        assert outside[:, :, 12:].all(), "the right of the picture"
        changed.append(float((~outside).float().mean()))
    assert changed[-1] > 0.2, "the left of the picture"
    assert torch.equal(found[0][kept], base[0][kept])
    assert not torch.equal(found, base)


@pytest.mark.parametrize("router", ["learned", "constant"])
def test_at_the_ends_of_the_ramp_it_is_the_base_model_and_the_ordinary_result(family: Family, router: str):
    prompt, make = family.prompt(subjects=TWO), ROUTERS[router]
    nowhere = family.sample(guided(family, NOWHERE, router=make()), prompt)
    assert subjects.difference(family.sample(family.model, family.prompt()), nowhere) < 1e-4
    everywhere = family.sample(guided(family, EVERYWHERE, router=make()), prompt)
    ordinary = family.sample(family.attach(router=make()), prompt)
    assert subjects.difference(ordinary, everywhere) < 1e-4
    assert subjects.difference(nowhere, everywhere) > 1e-2
    more = family.sample(guided(family, EVERYWHERE, router=make(), strength=1.6), prompt)
    assert subjects.difference(everywhere, more) > 1e-2


def test_it_costs_a_run_without_subjects_and_a_row_for_each_prompt_with_some(small: Family):
    both = [*small.prompt(1, MAN), *small.prompt(3, TWO)]
    cases: list[tuple[Any, dict[str, Any], list[int]]] = [
        (small.prompt(1, MAN), {}, [2, 2, 3, 3]),
        (small.prompt(1, MAN), {"cfg": 1.0}, [1, 1, 2, 2]),
        (both, {}, [3, 3, 5, 5]),
        (small.prompt(1), {}, [2, 2]),
    ]
    for positive, options, expected in cases:
        with subjects.counted_calls(small.model) as rows:
            small.sample(guided(small), positive, **options)
        assert rows == expected
    with subjects.counted_calls(small.model) as rows, subjects.one_by_one(small.model):
        small.sample(guided(small), small.prompt(1, MAN))
    assert rows == [1] * 10, "the prior is computed once in each run"


def test_outside_its_window_it_costs_no_row_and_strength_zero_is_the_base_model(small: Family):
    base = small.sample(small.model, small.prompt(), steps=4)
    with subjects.counted_calls(small.model) as rows:
        small.sample(guided(small, start=0.5), small.prompt(subjects=MAN), steps=4)
    assert rows == [2, 2, 2, 2, 2, 2, 3, 3]
    model = ApplyMoA.execute(small.model, small.adapter, 0.0, keep_background=True).result[0]
    assert torch.equal(small.sample(model, small.prompt(subjects=MAN), steps=4), base)


def masked(prompt: Any) -> Any:
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 20:] = 1
    return host.core_node("ConditioningSetMask", "append", prompt, mask, "default", 0.8)


CONDITIONS: dict[str, Callable[[Family], Any]] = {
    "two": lambda f: [*f.prompt(1, MAN), *f.prompt(3, TWO, tokens=154)],
    "one plain": lambda f: [*f.prompt(1, MAN), *f.prompt(3)],
    "area": lambda f: [
        *host.core_node("ConditioningSetAreaPercentage", "append", f.prompt(1, MAN), 0.5, 1, 0.5, 0, 1),
        *f.prompt(3),
    ],
    "mask": lambda f: [*masked(f.prompt(1, MAN)), *f.prompt(3, {6: 13})],
    "range": lambda f: [
        *host.core_node("ConditioningSetTimestepRange", "set_range", f.prompt(1, MAN), 0, 0.4),
        *host.core_node("ConditioningSetTimestepRange", "set_range", f.prompt(3, TWO), 0.4, 1),
    ],
}


@pytest.mark.parametrize("case", CONDITIONS)
def test_any_conditions_and_batches_together_are_the_same_one_by_one(small: Family, case: str):
    positive, size = CONDITIONS[case](small), (8, 8, 2)
    together = small.sample(guided(small), positive, small.prompt(2, MAN), size=size)
    with subjects.one_by_one(small.model):
        alone = small.sample(guided(small), positive, small.prompt(2, MAN), size=size)
    assert subjects.difference(alone, together) < 1e-3
    plain = [[context, {n: v for n, v in extra.items()}] for context, extra in positive]
    ordinary = small.sample(small.attach(), plain, small.prompt(2, MAN), size=size)
    assert (
        subjects.difference(ordinary, small.sample(guided(small, EVERYWHERE), plain, small.prompt(2, MAN), size=size))
        < 1e-3
    )


@pytest.mark.parametrize("cut", [1, 4, "windows"])
def test_tiles_and_windows_of_frames_keep_the_background(small: Family, cut: Any):
    def through(model: Any) -> Any:
        if cut == "windows":
            return cutters.windows(model, 2)
        return cutters.tiled(model, cutters.boxes((16, 16), 8), cut)

    size, prompt = ((8, 8, 4) if cut == "windows" else (16, 16)), small.prompt(subjects=MAN)
    for ramp, expected in ((NOWHERE, small.model), (EVERYWHERE, small.attach())):
        found = small.sample(through(guided(small, ramp)), prompt, size=size)
        wanted = small.sample(through(expected), small.prompt() if ramp is NOWHERE else prompt, size=size)
        assert subjects.difference(wanted, found) < 1e-3


def node(module: str, name: str, *args: Any) -> Callable[[Any], Any]:
    def patched(model: Any) -> Any:
        return subjects.first(getattr(importlib.import_module(f"comfy_extras.{module}"), name).execute(model, *args))

    return patched


def post_cfg(model: Any) -> Any:
    model = model.clone()
    model.set_model_sampler_post_cfg_function(lambda given: given["denoised"] + 0.1 * given["cond_denoised"])
    return model


NODES: dict[str, Callable[[Any], Any]] = {
    "RescaleCFG": lambda model: (
        importlib.import_module("comfy_extras.nodes_model_advanced").RescaleCFG().patch(model, 0.7)[0]
    ),
    "PAG": node("nodes_pag", "PerturbedAttentionGuidance", 3.0),
    "SAG": node("nodes_sag", "SelfAttentionGuidance", 0.5, 2.0),
    "Mahiro": node("nodes_mahiro", "Mahiro"),
    "TCFG": node("nodes_tcfg", "TCFG"),
    "post-CFG function": post_cfg,
}


@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("order", ["before", "after"])
def test_other_guidance_stays_in_effect(small: Family, name: str, order: str):
    other, prompt = NODES[name], small.prompt(subjects=MAN)

    def with_other(attach: Callable[..., Any]) -> Any:
        return attach(model=other(small.model)) if order == "before" else other(attach())

    def ends(ramp: tuple[float, float]) -> Tensor:
        return small.sample(with_other(lambda model=None: guided(small, ramp, model)), prompt, size=(16, 16))

    base = small.sample(other(small.model), small.prompt(), size=(16, 16))
    assert subjects.difference(base, ends(NOWHERE)) < 1e-3
    ordinary = small.sample(with_other(small.attach), prompt, size=(16, 16))
    assert subjects.difference(ordinary, ends(EVERYWHERE)) < 1e-3
    assert subjects.difference(base, ordinary) > 1e-2


def guider(name: str, model: Any, *conds: Any) -> Any:
    custom = importlib.import_module("comfy_extras.nodes_custom_sampler")
    made = {
        "DualCFG": lambda: custom.Guider_DualCFG(model),
        "PerpNeg": lambda: importlib.import_module("comfy_extras.nodes_perpneg").Guider_PerpNeg(model),
    }[name]()
    made.set_conds(*conds)
    made.set_cfg(5.0, 2.0)
    return made


@pytest.mark.parametrize("name", ["DualCFG", "PerpNeg"])
def test_guiders_with_three_prompts(small: Family, name: str):
    def sample(model: Any, positive: Any) -> Tensor:
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        sampler, sigmas = comfy.samplers.sampler_object("euler"), torch.tensor([10.0, 3.0, 0.0])
        with torch.inference_mode():
            made = guider(name, model, positive, small.prompt(2), small.prompt(3))
            return made.sample(noise, torch.zeros_like(noise), sampler, sigmas, disable_pbar=True, seed=0)

    prompt = small.prompt(subjects=MAN)
    assert subjects.difference(sample(small.model, small.prompt()), sample(guided(small, NOWHERE), prompt)) < 1e-3
    assert subjects.difference(sample(small.attach(), prompt), sample(guided(small, EVERYWHERE), prompt)) < 1e-3


@pytest.mark.parametrize("sampler", ["euler_ancestral_cfg_pp", "dpmpp_2m", "heun", "lcm", "uni_pc"])
def test_samplers(small: Family, sampler: str):
    prompt = small.prompt(subjects=MAN)
    for ramp, model, plain in ((NOWHERE, small.model, small.prompt()), (EVERYWHERE, small.attach(), prompt)):
        wanted = small.sample(model, plain, sampler=sampler, steps=3)
        assert subjects.difference(wanted, small.sample(guided(small, ramp), prompt, sampler=sampler, steps=3)) < 1e-2


@pytest.mark.parametrize("name", ["EasyCacheNode", "LazyCacheNode"])
def test_caches_of_whole_calls_tell_the_rows_apart(small: Family, name: str):
    cached = node("nodes_easycache", name, 0.9, 0.1, 0.95, False)
    prompt = in_half(small, MAN)
    computed: list[int] = []
    block = small.model.model.diffusion_model.input_blocks[0][0]  # EasyCache returns from within the U-Net
    handle = block.register_forward_pre_hook(lambda _module, given: computed.append(len(given[0])))
    found = small.sample(cached(guided(small, router=MaskRouter())), prompt, steps=8, size=(16, 16))
    handle.remove()
    assert set(computed) == {2, 3} and len(computed) < 16, f"no step was taken from the cache: {computed}"
    base = small.sample(cached(small.model), small.prompt(), steps=8, size=(16, 16))
    assert found.isfinite().all()
    assert subjects.difference(base, found) > 1e-2


def test_other_nodes_see_positive_and_negative_alone(small: Family):
    seen: set[int] = set()

    def patch(hidden: Tensor, options: dict) -> Tensor:
        seen.update(options["cond_or_uncond"])
        return hidden

    model = guided(small)
    model.set_model_attn2_output_patch(patch)
    small.sample(model, small.prompt(subjects=MAN))
    assert seen == {0, 1}


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m_sde", "euler_ancestral_cfg_pp", "dpm_2", "lcm"])
def test_every_samplers_background_is_the_base_models_own(small: Family, sampler: str):
    prompt, router = in_half(small, MAN), MaskRouter()
    found = small.sample(guided(small, router=router), prompt, sampler=sampler, steps=3, size=(16, 16))
    base = small.sample(small.model, small.prompt(), sampler=sampler, steps=3, size=(16, 16))
    assert torch.equal(found[..., 12:], base[..., 12:])
    assert subjects.difference(base, found) > 1e-2


def test_both_runs_are_one_progress_and_cancelling_either_leaves_the_model_as_it_was(small: Family):
    model, prompt, seen = guided(small), small.prompt(subjects=MAN), []
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def run(stop: int | None) -> Tensor:
        def callback(step: int, _denoised: Tensor, _x: Tensor, steps: int) -> None:
            seen.append((step, steps))
            if step == stop:
                raise InterruptedError

        return comfy.sample.sample(
            model, noise, 2, 5.0, "euler", "normal", prompt, small.prompt(2), torch.zeros_like(noise), callback=callback,
            disable_pbar=True, seed=0,
        )  # fmt: skip

    wanted = run(None)
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]
    for stop in (0, 2):
        with pytest.raises(InterruptedError):
            run(stop)
        assert torch.equal(run(None), wanted)


def test_a_sampler_that_adapts_its_steps_is_reported(small: Family, caplog: pytest.LogCaptureFixture):
    small.sample(guided(small, EVERYWHERE), small.prompt(subjects=MAN), sampler="dpm_adaptive", steps=3)
    assert "did not take the same steps without the subjects" in caplog.text
    caplog.clear()
    small.sample(guided(small, EVERYWHERE), small.prompt(subjects=MAN), steps=3)
    assert "did not take the same steps without the subjects" not in caplog.text
