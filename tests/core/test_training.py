"""The trainer on a toy base model: it learns, it can be killed and resumed, it averages its weights."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moa_attention import LayerSpec, MoAAdapter, MoAConfig
from moa_attention.attention import attend
from moa_attention.config import EMBEDDED_ENCODER
from moa_attention.expert import Projections
from moa_attention.training.base import Batch, Record
from moa_attention.training.config import TrainConfig
from moa_attention.training.loop import train
from moa_attention.training.lots import Lot, generator_for, lots
from moa_attention.training.objective import Objective, draw_timesteps, encode_references
from moa_attention.training.optimiser import learning_rate
from moa_attention.training.workers import Alone

LAYERS = (LayerSpec("middle_0_0_attn1", 0, 16, 16, 2, True), LayerSpec("middle_0_0_attn2", 0, 16, 12, 2, True))
CONFIG = MoAConfig("toy", LAYERS, 12, EMBEDDED_ENCODER, 8)


class Attention(nn.Module):
    """A frozen attention layer of the toy base model."""

    def __init__(self, spec: LayerSpec):
        super().__init__()
        self.heads = spec.heads
        self.to_q = nn.Linear(spec.hidden, spec.hidden, bias=False)
        self.to_k = nn.Linear(spec.context, spec.hidden, bias=False)
        self.to_v = nn.Linear(spec.context, spec.hidden, bias=False)
        self.to_out = nn.Identity()

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        return attend(self.to_q(z), self.to_k(c), self.to_v(c), self.heads)


class ToyBase(nn.Module):
    """A denoiser of two attention layers over 4-channel latents."""

    def __init__(self, adapter: MoAAdapter):
        super().__init__()
        torch.manual_seed(1)
        self.lift, self.drop = nn.Linear(4, 16), nn.Linear(16, 4)
        self.attentions = nn.ModuleDict({spec.name: Attention(spec) for spec in LAYERS})
        self.requires_grad_(False)
        self.adapter = [adapter]

    def sigma_at(self, share: Tensor) -> Tensor:
        return share + 0.5

    def add_noise(self, latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        return latents + noise * sigma[:, None, None, None]

    def error_weight(self, sigma: Tensor) -> Tensor:
        return 1 / sigma

    def denoise(self, noisy: Tensor, sigma: Tensor, batch: Batch, features: Tensor, record: Record) -> Tensor:
        adapter, observe = self.adapter[0], record(sigma[0], torch.arange(len(noisy)))
        step = adapter.begin(batch.context, sigma * 100, batch.slots, features, None, torch.zeros(()))
        h, w = noisy.shape[-2:]
        z = self.lift(noisy.flatten(2).transpose(1, 2))
        for spec in LAYERS:
            prior = self.attentions[spec.name](z, batch.context if spec.is_cross else z)
            context = step.context_for(spec, z, batch.context)
            own = Projections.of(self.attentions[spec.name])
            z = z + adapter.layers[spec.name](z, context, prior, own, (h, w), observe=observe)
        return self.drop(z).transpose(1, 2).unflatten(-1, (h, w))


def setup() -> tuple[MoAAdapter, ToyBase]:
    torch.manual_seed(0)
    adapter = MoAAdapter(CONFIG)
    base = ToyBase(adapter)
    adapter.init_from(dict(base.attentions.items()))
    return adapter, base


def draw(lot: Lot) -> Batch:
    """Examples in turn of one and of two subjects."""
    masks = torch.zeros(len(lot.places), 2, 6, 4)
    slots = torch.zeros(len(lot.places), 5, dtype=torch.long)
    for i, place in enumerate(lot.places):
        masks[i, 0, 1:3, 1:3] = 1
        slots[i, 1 + place % 2] = 1
        if place % 2:
            masks[i, 1, 4:] = 1
            slots[i, 3] = 2

    def random(*shape: int) -> Tensor:
        return torch.stack([torch.randn(shape, generator=g) for g in lot.generators])

    return Batch(random(4, 6, 4), random(5, 12), slots, random(2, 3, 64, 64).sigmoid(), masks)


def one_lot(seed: int = 0) -> Lot:
    return next(lots(0, config(1, seed=seed), Alone()))


def config(steps: int, **options: Any) -> TrainConfig:
    settings = {"batch_size": 2, "learning_rate": 1e-2, "precision": "float32", **options}
    return TrainConfig(steps=steps, **settings)


def quiet(_step: int, _numbers: dict[str, float], _averaged: MoAAdapter) -> None:
    pass


def stop_after(calls: int) -> Callable[[], bool]:
    answers = iter([True] * calls + [False])
    return lambda: next(answers)


class Killed(Exception):
    pass


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[MoAAdapter, MoAAdapter]:
    adapter, base = setup()
    state = tmp_path_factory.mktemp("unbroken") / "state"
    return adapter, train(adapter, base, draw, config(5, schedule="cosine", warmup=2, save_every=3), state, quiet)


def test_a_stopped_run_resumes_to_the_unbroken_one(tmp_path: Path, unbroken: tuple[MoAAdapter, MoAAdapter]):
    settings = config(5, schedule="cosine", warmup=2, save_every=3)
    adapter, base = setup()
    train(adapter, base, draw, settings, tmp_path / "state", quiet, stop_after(2))
    assert not same(adapter, unbroken[0])
    adapter, base = setup()
    nn.init.normal_(adapter.fusion.widen.weight)  # the state, not the caller, decides where to go on from
    average = train(adapter, base, draw, settings, tmp_path / "state", quiet)
    assert same(adapter, unbroken[0])
    assert same(average, unbroken[1])


def test_a_killed_run_goes_on_from_its_last_save(tmp_path: Path, unbroken: tuple[MoAAdapter, MoAAdapter]):
    settings = config(5, schedule="cosine", warmup=2, save_every=3)
    seen: list[int] = []

    def die(step: int, _numbers: dict[str, float], _averaged: MoAAdapter) -> None:
        seen.append(step)
        if seen == [1, 2, 3, 4]:
            raise Killed

    adapter, base = setup()
    with pytest.raises(Killed):
        train(adapter, base, draw, settings, tmp_path / "state", die)
    adapter, base = setup()
    average = train(adapter, base, draw, settings, tmp_path / "state", die)
    assert seen == [1, 2, 3, 4, 4, 5]
    assert same(adapter, unbroken[0])
    assert same(average, unbroken[1])


def test_training_lowers_the_loss_on_one_batch(tmp_path: Path):
    adapter, base = setup()
    losses: list[dict[str, float]] = []
    fixed = draw(one_lot(3))
    base.sigma_at = lambda share: torch.ones(len(share))
    base.add_noise = lambda latents, noise, sigma: latents
    train(adapter, base, lambda _: fixed, config(12), tmp_path / "state", lambda _, n, __: losses.append(n))
    assert losses[-1]["reconstruction"] < losses[0]["reconstruction"]
    assert losses[-1]["loss"] < 0.95 * losses[0]["loss"]
    assert set(losses[0]) >= {"gradient_norm", "router", "object", "prior_outside", "personal_inside"}
    assert losses[0]["prior_outside"] == pytest.approx(0.5)


def test_noisiness_prefers_noisy_timesteps():
    generators = [generator_for(0, 0, place) for place in range(4000)]
    even, noisy = (draw_timesteps(generators, config(1, noisiness=n)) for n in (1.0, 2.0))
    assert even.mean().item() == pytest.approx(1 / 2, abs=0.02)
    assert noisy.mean().item() == pytest.approx(2 / 3, abs=0.02)
    assert noisy.min() >= 0 and noisy.max() < 1


def test_router_weight_sends_the_background_to_the_prior(tmp_path: Path):
    adapter, base = setup()
    numbers: list[dict[str, float]] = []
    train(adapter, base, draw, config(15, router_weight=1.0), tmp_path / "state", lambda _, n, __: numbers.append(n))
    assert numbers[-1]["prior_outside"] > 0.6


def test_router_foreground_sends_subjects_to_the_personalised_branch(tmp_path: Path):
    adapter, base = setup()
    numbers: list[dict[str, float]] = []
    settings = config(15, router_weight=1.0, router_foreground=4.0)
    train(adapter, base, draw, settings, tmp_path / "state", lambda _, n, __: numbers.append(n))
    assert numbers[-1]["personal_inside"] > numbers[0]["personal_inside"]


def test_every_adapter_weight_gets_a_gradient_and_no_base_weight():
    adapter, base = setup()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.2)
    lot = one_lot()
    loss, _ = Objective(adapter, base, config(1))(draw(lot), lot.generators)
    loss.backward()
    assert [n for n, p in adapter.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    assert all(p.grad is None for p in base.parameters())


def test_averaged_weights_follow_slowly(tmp_path: Path):
    adapter, base = setup()
    start = copy.deepcopy(adapter)
    history: list[MoAAdapter] = []
    settings = config(3, ema_decay=0.9)
    average = train(
        adapter, base, draw, settings, tmp_path / "state", lambda *_: history.append(copy.deepcopy(adapter))
    )
    name = "layers.middle_0_0_attn2.to_v.weight"
    expected = history[0].state_dict()[name]  # the first update copies
    for later in history[1:]:
        expected = 0.9 * expected + 0.1 * later.state_dict()[name]
    torch.testing.assert_close(average.state_dict()[name], expected)
    assert not torch.equal(average.state_dict()[name], adapter.state_dict()[name])
    assert not torch.equal(start.state_dict()[name], adapter.state_dict()[name])
    assert not any(p.requires_grad for p in average.parameters())


def test_learning_rate_warms_up_and_falls():
    constant = config(100, warmup=10)
    assert learning_rate(0, constant) == pytest.approx(1e-3)
    assert learning_rate(50, constant) == learning_rate(99, constant) == pytest.approx(1e-2)
    cosine = config(100, schedule="cosine")
    assert learning_rate(0, cosine) == pytest.approx(1e-2)
    assert learning_rate(50, cosine) == pytest.approx(1e-2 * (0.05 + 0.475))
    assert learning_rate(100, cosine) == pytest.approx(5e-4)


def test_references_are_pictures_or_features():
    adapter, _ = setup()
    assert encode_references(adapter, torch.rand(2, 3, 3, 64, 64)).shape == (2, 3, 8)
    features = torch.rand(2, 3, 8)
    assert encode_references(adapter, features) is features
    adapter.encoder = None
    with pytest.raises(ValueError, match="references are pictures"):
        encode_references(adapter, torch.rand(2, 3, 3, 64, 64))
