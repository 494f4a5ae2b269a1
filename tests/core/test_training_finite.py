"""Numbers that are not finite: steps are skipped, runs stop with a good state, pictures are left out by name."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_training_data import SETTINGS, ToyEncoders, fill, folder  # noqa: F401 (a fixture)
from torch import Tensor, nn
from toy import config, draw, ignore_log, setup, stop_after

from moa_attention.training.base import Batch
from moa_attention.training.cache.building import build_cache
from moa_attention.training.data.folder import read_folder
from moa_attention.training.loop import MOST_SKIPPED, train
from moa_attention.training.lots import Lot
from moa_attention.training.saved.log import RunLog, read_losses
from moa_attention.training.saved.state import TrainingDiverged


def broken_at(*steps: int):
    """The toy's batches, with a NaN in the latents of these steps, counted from 0."""

    def examples(lot: Lot) -> Batch:
        batch = draw(lot)
        if lot.step in steps:
            batch.latents[0, 0, 0, 0] = math.nan
        return batch

    return examples


def test_a_step_that_is_not_finite_changes_nothing_and_is_logged(tmp_path: Path):
    log, kept = tmp_path / "log.jsonl", []
    rows_of_run = RunLog(log)
    adapter, base = setup()

    def write(step: int, numbers: dict[str, float], averaged: nn.Module) -> None:
        rows_of_run.step(step, numbers)
        kept.append({name: t.clone() for name, t in [*adapter.state_dict().items(), *averaged.state_dict().items()]})

    train(adapter, base, broken_at(2), config(4), tmp_path / "state", write)
    assert all(torch.equal(kept[1][name], kept[2][name]) for name in kept[1])
    assert any(not torch.equal(kept[2][name], kept[3][name]) for name in kept[2])
    rows = [json.loads(line, parse_constant=pytest.fail) for line in log.read_text().splitlines()]
    assert [row.get("skipped") for row in rows] == [None, None, 1.0, None]
    assert "loss" not in rows[2] and len(read_losses(log)) == 3


def test_five_in_a_row_stop_the_run_and_keep_the_last_good_state(tmp_path: Path):
    adapter, base = setup()
    steps: list[int] = []
    with pytest.raises(
        TrainingDiverged, match=r"stopped at step 8: .* in 5 steps in a row\. The state of step 3 is kept"
    ):
        train(adapter, base, broken_at(*range(3, 20)), config(20, save_every=1), tmp_path / "state",
              lambda step, *_: steps.append(step))  # fmt: skip
    assert steps == list(range(1, 3 + MOST_SKIPPED + 1))
    good, base = setup()
    train(good, base, draw, config(20, save_every=1), tmp_path / "good", ignore_log, stop_after(3))
    found, wanted = load_file(tmp_path / "state"), load_file(tmp_path / "good")
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


def test_four_in_a_row_do_not_stop_it(tmp_path: Path):
    adapter, base = setup()
    average = train(adapter, base, broken_at(1, 2, 3, 4), config(6), tmp_path / "state", ignore_log)
    assert all(tensor.isfinite().all() for tensor in average.state_dict().values())


def test_a_gradient_that_is_not_finite_skips_the_step(tmp_path: Path):
    adapter, base = setup()
    weight = adapter.get_parameter("layers.middle_0_0_attn2.to_v.weight")
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = {name: t.clone() for name, t in adapter.state_dict().items()}
    with pytest.raises(TrainingDiverged, match="No state was saved"):
        train(adapter, base, draw, config(9), tmp_path / "state", ignore_log)
    assert all(torch.equal(before[name], t) for name, t in adapter.state_dict().items())
    assert not (tmp_path / "state").exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path):
    adapter, base = setup()
    train(adapter, base, draw, config(1), tmp_path / "state", ignore_log)
    before = load_file(tmp_path / "state")

    def spoil(_step: int, _numbers: dict[str, float], _averaged: nn.Module) -> None:
        with torch.no_grad():
            adapter.get_parameter("fusion.widen.weight").fill_(math.inf)

    with pytest.raises(
        TrainingDiverged, match=r"step 2: model.fusion.widen.weight contains NaN or infinity\. The state of"
    ):
        train(adapter, base, draw, config(2), tmp_path / "state", spoil)
    after = load_file(tmp_path / "state")
    assert all(torch.equal(before[name], after[name]) for name in before)


class Overflowing(ToyEncoders):
    """Latents of red pictures, or features of views, exceed what 16 bits hold."""

    def __init__(self, what: str):
        super().__init__()
        self.what = what

    def latents(self, images: Tensor) -> Tensor:
        return super().latents(images) * (1e6 if self.what == "latents" else 1)

    def features(self, references: Tensor) -> Tensor:
        return super().features(references) * (math.nan if self.what == "features" else 1)


@pytest.mark.parametrize("what", ["latents", "features"])
def test_a_picture_whose_encoding_is_not_finite_is_left_out_by_name(folder: Path, what: str):  # noqa: F811
    with pytest.raises(ValueError, match=rf"(?s)Nothing to train on.*one\.jpg: non-finite {what}"):
        fill(folder, Overflowing(what), cache=f"overflow_{what}")


class Convolutions(ToyEncoders):
    """A VAE of twelve layers whose weights require a gradient, as the host's do: 2 MiB for each layer's output at 64²."""

    batch = 1

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Conv2d(3 if n == 0 else 128, 128, 3, padding=1) for n in range(12)]
        self.layers = nn.Sequential(*layers)
        self.kept: list[Tensor] = []

    def latents(self, images: Tensor) -> Tensor:
        made = self.layers(images)[:, :3, ::8, ::8]
        self.kept.append(made)
        return made


def test_the_cache_keeps_no_graph(folder: Path):  # noqa: F811
    encoders = Convolutions()
    build_cache(read_folder(folder), encoders, replace(SETTINGS, side=64), folder.parent / "no_graph", lambda *_: None)
    assert len(encoders.kept) == 3
    assert all(p.requires_grad for p in encoders.layers.parameters())
    assert not any(made.requires_grad or made.grad_fn for made in encoders.kept)


def resident() -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own count")
def test_memory_does_not_grow_with_the_pictures(folder: Path):  # noqa: F811
    """A graph of one picture would keep 24 MiB; a shard of 24 pictures half a GiB."""
    for number in range(24):
        for suffix in (".jpg", ".png", ".txt"):
            (folder / f"copy{number}{suffix}").write_bytes((folder / f"one{suffix}").read_bytes())
    encoders = Convolutions()
    sizes: list[float] = []

    class Measured(Convolutions):
        def latents(self, images: Tensor) -> Tensor:
            sizes.append(resident())
            return encoders.layers(images)[:, :3, ::8, ::8]

    fill(folder, Measured(), cache="measured")
    assert len(sizes) == 27
    assert sizes[-1] - sizes[4] < 100
