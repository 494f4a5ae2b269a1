"""The adapter beside a base model: no effect without subjects or at strength 0, an effect on subjects' rows, none once removed."""

from pathlib import Path

import comfy.model_management
import host
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.formats.adapter import save_adapter
from comfyui_moa.moa_attention.run.strength import PRIOR_ONLY
from comfyui_moa.nodes.apply import ApplyMoA
from comfyui_moa.nodes.host.files import adapters
from comfyui_moa.nodes.host.model import patch
from subjects import Family
from torch import Tensor

MAN = {4: 11}


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def family(request: pytest.FixtureRequest) -> Family:
    return subjects.make_family(request.param)


@pytest.fixture(scope="module")
def base(family: Family) -> Tensor:
    return family.sample(family.model, family.prompt())


@pytest.fixture(scope="module")
def personal(family: Family) -> Tensor:
    return family.sample(family.attach(), family.prompt(subjects=MAN))


def test_every_attention_layer_is_found(family: Family):
    config = family.adapter.patcher.model.config
    assert len(config.layers) == {"sd15": 32, "sdxl": 140}[family.name]
    assert config.depth == {"sd15": 16, "sdxl": 70}[family.name]
    outermost = sum(not spec.supervised for spec in config.layers) // 2
    assert outermost == {"sd15": 5, "sdxl": 10}[family.name]


def test_a_random_adapter_changes_the_picture(base: Tensor, personal: Tensor):
    assert personal.isfinite().all()
    assert subjects.difference(base, personal) > 0.05


def test_without_a_subject_the_picture_is_the_base_models(family: Family, base: Tensor):
    assert torch.equal(family.sample(family.attach(), family.prompt()), base)


def test_a_fresh_adapter_is_the_base_model(family: Family, base: Tensor):
    fresh = subjects.make_adapter(family.model, family.context, fresh=True)
    assert torch.equal(family.sample(family.attach(adapter=fresh), family.prompt()), base)
    # With a subject the personalised branch runs: equal experts and tokens, so only the order of rounding may differ.
    assert subjects.difference(base, family.sample(family.attach(adapter=fresh), family.prompt(subjects=MAN))) < 1e-4


@pytest.mark.parametrize(
    "options",
    [{"prior_bias": 9999.0}, {"prior_bias": PRIOR_ONLY}, {"start": 0.4, "end": 0.4}, {"start": 0.0, "end": 0.0}],
    ids=str,
)
def test_large_bias_and_empty_window_are_the_base_model(family: Family, base: Tensor, options: dict):
    assert torch.equal(family.sample(family.attach(**options), family.prompt(subjects=MAN)), base)


def test_strength_zero_is_the_base_model_and_one_is_no_bias(family: Family, base: Tensor, personal: Tensor):
    prompt = family.prompt(subjects=MAN)
    for strength, expected in ((0.0, base), (1.0, personal)):
        model, trace = ApplyMoA.execute(family.model, family.adapter, strength, pixels="all").result
        assert torch.equal(family.sample(model, prompt), expected)
        assert bool(trace.calls) == (strength > 0), "at strength 0 the personalised branch costs nothing"


def test_a_window_is_part_of_the_schedule(family: Family, base: Tensor, personal: Tensor):
    early = family.sample(family.attach(end=0.3), family.prompt(subjects=MAN))
    assert not torch.equal(early, base)
    assert not torch.equal(early, personal)


def test_subjects_without_adapter_do_nothing(family: Family, base: Tensor):
    """Up to rounding: the host does not batch a prompt that carries subjects with one that carries none."""
    assert subjects.difference(base, family.sample(family.model, family.prompt(subjects=MAN))) < 1e-4


def test_dropping_the_clone_removes_everything(family: Family, base: Tensor, personal: Tensor):
    keys = {k: list(v) for k, v in family.model.wrappers.items()}
    model = family.attach()
    assert torch.equal(family.sample(model, family.prompt(subjects=MAN)), personal)
    assert family.model.model_options["transformer_options"].get("patches", {}) == {}
    assert {k: list(v) for k, v in family.model.wrappers.items()} == keys
    assert not family.model.get_additional_models_with_key(patch.KEY)
    del model
    assert torch.equal(family.sample(family.model, family.prompt()), base)


def test_branches_of_one_model_do_not_affect_each_other(family: Family, personal: Tensor):
    prompt, other = family.prompt(subjects=MAN), subjects.make_adapter(family.model, family.context, seed=6)
    one, two = family.attach(), family.attach(adapter=other)
    second = family.sample(two, prompt)
    assert torch.equal(family.sample(one, prompt), personal)
    assert torch.equal(family.sample(two, prompt), second)
    assert subjects.difference(personal, second) > 0.01


def test_applying_twice_means_the_second(family: Family, personal: Tensor):
    other = subjects.make_adapter(family.model, family.context, seed=6)
    twice = family.attach(family.attach(adapter=other, prior_bias=3.0))
    assert torch.equal(family.sample(twice, family.prompt(subjects=MAN)), personal)
    assert len(twice.get_additional_models_with_key(patch.KEY)) == 1


def call(family: Family, features: Tensor | None, slots: Tensor) -> Tensor:
    """One call of four rows; the slots decide which have subjects."""
    generator = torch.Generator().manual_seed(3)
    x, context = torch.randn(4, 4, 8, 8, generator=generator), torch.randn(4, 77, family.context, generator=generator)
    sigma = torch.full((4,), 2.0)
    comfy.model_management.load_models_gpu([family.model, family.adapter.patcher])
    options = (
        {} if family.pooled is None else {"y": torch.randn(4, family.pooled + host.SDXL_ADM_SIZES, generator=generator)}
    )
    with torch.inference_mode():
        if features is None:
            return family.model.model.apply_model(x, sigma, c_crossattn=context, transformer_options={}, **options)
        model = family.attach(observers=[subjects.Recorder(lambda _spec, _routing: None)])
        model.model.current_patcher = model
        transformer = {**model.model_options["transformer_options"], "wrappers": model.wrappers}
        payload = {"moa_slots": slots[..., None], "moa_subjects": features}
        return model.model.apply_model(
            x, sigma, c_crossattn=context, transformer_options=transformer, **options, **payload
        )


def test_swapping_a_picture_changes_only_rows_with_that_subject(family: Family):
    slots = torch.zeros(4, 77, dtype=torch.long)
    slots[1, 4], slots[3, 4], slots[3, 9] = 1, 1, 2
    features = torch.randn(4, 2, subjects.FEATURE)
    swapped = features.clone()
    swapped[3, 1] += 1
    before, after, alone = call(family, features, slots), call(family, swapped, slots), call(family, None, slots)
    assert torch.equal(before[[0, 2]], alone[[0, 2]])
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3], after[3])
    assert not torch.equal(before[1], alone[1])


def test_permuting_subjects_together_with_their_tokens_changes_nothing(family: Family):
    model = family.attach()
    forth = family.sample(model, family.prompt(subjects={4: 11, 9: 12}))
    back = family.sample(model, family.prompt(subjects={9: 12, 4: 11}))
    crossed = family.sample(model, family.prompt(subjects={4: 12, 9: 11}))
    assert subjects.difference(forth, back) < 1e-4
    assert subjects.difference(forth, crossed) > 1e-3


def lora(family: Family, names: tuple[str, ...]):
    """A clone of the model with every attention's projections of these names changed."""
    unet = family.model.model.diffusion_model
    generator = torch.Generator().manual_seed(4)
    keys = [k for k, _ in unet.named_parameters() if any(f".{n}.weight" in k for n in names) and ".attn" in k]
    shapes = {key: unet.get_parameter(key).shape for key in keys}
    model = family.model.clone()
    model.add_patches(
        {f"diffusion_model.{k}": (0.05 * torch.randn(s, generator=generator),) for k, s in shapes.items()}
    )
    return model


def test_a_lora_on_the_base_reaches_the_prior_only(family: Family):
    prompt, tuned = family.prompt(subjects=MAN), lora(family, ("to_q", "to_k", "to_v"))
    pinned = {"prior_bias": -PRIOR_ONLY}
    alone = family.sample(family.attach(**pinned), prompt, cfg=1.0)
    assert torch.equal(family.sample(family.attach(tuned, **pinned), prompt, cfg=1.0), alone)
    assert (
        subjects.difference(alone, family.sample(family.attach(lora(family, ("to_out.0",)), **pinned), prompt, cfg=1.0))
        > 1e-3
    )
    plain = family.sample(family.attach(), prompt, cfg=1.0)
    assert subjects.difference(plain, family.sample(family.attach(tuned), prompt, cfg=1.0)) > 1e-3


def test_saving_and_loading_change_nothing(family: Family, personal: Tensor, tmp_path: Path):
    path = tmp_path / "adapter.safetensors"
    save_adapter(family.adapter.patcher.model, path, licence="none", provenance={})
    patcher = adapters.load_adapter_patcher(path)
    build, args = patcher.cached_patcher_init[:2]
    for again in (patcher, build(*args)):
        saved, loaded = family.adapter.patcher.model.state_dict(), again.model.state_dict()
        assert saved.keys() == loaded.keys()
        assert all(torch.equal(saved[name], loaded[name]) for name in saved)
        model = patch.apply_adapter(family.model, again, encoder=subjects.ENCODER)
        # Tensors mapped from a file are aligned otherwise, and the matrix kernels round by alignment.
        assert subjects.difference(personal, family.sample(model, family.prompt(subjects=MAN))) < 1e-4
