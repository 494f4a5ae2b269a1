"""Every optimiser of the table: it trains the toy, and a run that was stopped ends like one that was not, to the bit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load_file
from toy import config, draw, ignore_log, one_lot, setup, stop_after

from moa_attention import MoAAdapter
from moa_attention.training.config import TrainConfig
from moa_attention.training.loop import train
from moa_attention.training.objective import Objective
from moa_attention.training.optimisation.optimisers import (
    OPTIMISERS,
    check_optimiser,
    installed,
    make_optimiser,
    training_weights,
)
from moa_attention.training.optimisation.pair import PairedOptimiser
from moa_attention.training.saved.moments import OptimiserState

RATES = {"prodigy": 1.0, "lion": 1e-3, "lion-8bit": 1e-3}
PRESENT = [name for name, library in OPTIMISERS.items() if installed(library.module)]


def settings(name: str, steps: int, **options: Any) -> TrainConfig:
    return config(steps, optimiser=name, learning_rate=RATES.get(name, 1e-2), save_every=3, **options)


def run(name: str, state: Path, steps: int, *keep_going: Any) -> tuple[MoAAdapter, MoAAdapter]:
    adapter, base = setup()
    return adapter, train(adapter, base, draw, settings(name, steps), state, ignore_log, *keep_going)


@pytest.mark.parametrize("name", PRESENT)
def test_it_lowers_the_loss(name: str, tmp_path: Path):
    losses: list[float] = []
    adapter, base = setup()
    fixed = draw(one_lot(3))
    base.sigma_at = lambda share: torch.ones(len(share))
    base.add_noise = lambda latents, noise, sigma: latents
    steps = 80 if name == "prodigy" else 12  # it begins with a learning rate of 1e-6
    state = tmp_path / "state"
    train(adapter, base, lambda _: fixed, settings(name, steps), state, lambda _, n, __: losses.append(n["loss"]))
    assert losses[-1] < 0.97 * losses[0]


@pytest.mark.parametrize("name", PRESENT)
def test_a_stopped_run_ends_like_an_unbroken_one(name: str, tmp_path: Path):
    unbroken = run(name, tmp_path / "unbroken", 7)
    run(name, tmp_path / "state", 7, stop_after(4))
    resumed = run(name, tmp_path / "state", 7)
    for ours, theirs in zip(resumed, unbroken, strict=True):
        for key, value in theirs.state_dict().items():
            assert torch.equal(ours.state_dict()[key], value), key
    first, second = load_file(tmp_path / "state"), load_file(tmp_path / "unbroken")
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_setting_names_every_optimiser_of_the_table():
    assert set(get_args(get_type_hints(TrainConfig)["optimiser"])) == set(OPTIMISERS)


def test_a_missing_package_is_refused_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    for name, package in {"prodigy": "prodigyopt", "lion": "lion-pytorch", "muon": "torch>=2.9"}.items():
        with pytest.raises(ValueError, match=f"'{name}' needs the package {package}.*Run `pip install '{package}'`"):
            check_optimiser(settings(name, 1))
    check_optimiser(settings("adamw", 1))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch below 2.9")
def test_muon_has_the_matrices_and_adamw_the_rest():
    adapter, base = setup()
    made = make_optimiser(adapter.parameters(), settings("muon", 1))
    assert isinstance(made, PairedOptimiser)
    muon, adamw = made.parts
    assert isinstance(muon, torch.optim.Muon) and isinstance(adamw, torch.optim.AdamW)
    shapes = [[p.ndim for group in part.param_groups for p in group["params"]] for part in made.parts]
    assert (
        set(shapes[0]) == {2}
        and 2 not in shapes[1]
        and len(shapes[0]) + len(shapes[1]) == len(list(adapter.parameters()))
    )
    before = copy.deepcopy(adapter.state_dict())
    lot = one_lot()
    Objective(adapter, base, config(1))(draw(lot), lot.generators)[0].backward()
    for group in made.param_groups:
        group["lr"] = 1e-3
    made.step()
    moved = {name for name, value in adapter.state_dict().items() if not torch.equal(value, before[name])}
    assert {"layers.middle_0_0_attn2.to_v.weight", "layers.middle_0_0_attn2.router.project.bias"} <= moved


class Counting(torch.optim.SGD):
    """Keeps a number and a tensor in its group, nested values in its state, and other weights while it trains."""

    def __init__(self, parameters: list[torch.Tensor]):
        super().__init__(parameters, lr=1.0, weight_decay=0.1)
        self.param_groups[0].update(k=0, total=torch.zeros(2), mode="out")

    def train(self) -> None:
        self.param_groups[0]["mode"] = "in"

    def eval(self) -> None:
        self.param_groups[0]["mode"] = "out"


def test_what_an_optimiser_changes_in_its_groups_is_kept_and_options_are_not():
    weight, other = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    first = Counting([weight, other])
    state = OptimiserState(first)
    assert state.values() == {}
    first.param_groups[0].update(k=5, total=torch.ones(2), lr=0.5)
    table = torch.ones(3)
    first.state[weight] = {"step": 4, "inner": {"scale": table}}
    first.state[other] = {"inner": {"scale": table}}
    values = state.values()
    assert set(values) == {"0.step", "0.inner.scale", "1.inner.scale", "group.0.k", "group.0.total"}
    assert values["0.inner.scale"].data_ptr() != values["1.inner.scale"].data_ptr(), "as safetensors writes them"
    second = Counting([weight, other])
    second.param_groups[0]["weight_decay"] = 0.2  # changed between two sessions
    OptimiserState(second).restore(values)
    (group,) = second.param_groups
    assert (group["k"], group["weight_decay"], group["lr"]) == (5, 0.2, 1.0) and torch.equal(
        group["total"], torch.ones(2)
    )
    assert second.state[weight]["step"] == 4 and torch.equal(second.state[weight]["inner"]["scale"], torch.ones(3))


def test_the_weights_of_training_are_left_in_any_case():
    optimiser = Counting([torch.zeros(1, requires_grad=True)])
    with pytest.raises(KeyError), training_weights(optimiser):
        assert optimiser.param_groups[0]["mode"] == "in"
        raise KeyError
    assert optimiser.param_groups[0]["mode"] == "out"
    with training_weights(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)):
        pass
