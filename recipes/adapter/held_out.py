"""The held-out pictures of a run: their errors in the log, a plot of them, and the adapter of the best step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ...moa_attention.adapters.base import Adapter
from ...moa_attention.training.cache.entries import CachedPictures
from ...moa_attention.training.config import TrainConfig
from ...moa_attention.training.data.examples import CachedExamples
from ...moa_attention.training.held_out import NUMBERS, PREFIX, TIMESTEPS, HeldOutErrors, all_bound
from ...moa_attention.training.saved.log import read_log
from ...nodes.host.model.patch import host_patcher
from ...nodes.host.training.base import HostBase
from ...nodes.host.training.data import cached_examples
from .best import BestFile, Rows, best_step
from .models import LoadedModels
from .result import write_result
from .run_files import LOG, STATE, result_file, stored_run_of
from .settings import Settings

PLOT = "held_out.png"
LABELS = dict(zip(NUMBERS, ("right reference", "wrong reference", "R_0 outside", "R_1 inside"), strict=True))
COLOURS = dict(zip(NUMBERS, ("#3b6ea5", "#d98841", "#5a5a5a", "#3a923a"), strict=True))


class HeldOutRecord:
    """Measures the adapter that is being trained, and keeps it while it is the best.

    Args:
        log: the log of the run, which contains the measurements of all its sessions.
        best: the file of the best step.
        write: writes the adapter of a step into it.
    """

    def __init__(
        self, model: Any, pictures: CachedExamples, config: TrainConfig, log: Path, best: BestFile,
        write: Callable[[Adapter, int], None],
    ):  # fmt: skip
        self.model, self.log, self.best, self.write = model, log, best, write
        self.errors = HeldOutErrors(pictures, config)
        self.base: HostBase | None = None

    def measure(self, adapter: Adapter) -> dict[str, float]:
        """The numbers for the log. Args: adapter: the same object in every call."""
        self.base = self.base or HostBase(self.model, host_patcher(adapter))
        return self.errors.measure(adapter, self.base)

    def conclude(self, step: int, adapter: Adapter) -> None:
        """Draw the plot, and write the adapter if it is the best so far. The log contains the measurement of this step."""
        rows = measurements(self.log)
        if not rows:
            return
        plot_held_out(rows, self.log.with_name(PLOT))
        if self.best.is_best(rows, step):
            self.write(adapter, step)
            self.best.written(rows, step)


def open_record(settings: Settings, loaded: LoadedModels, pictures: int, held: CachedPictures) -> HeldOutRecord | None:
    """The record of a run; None when no picture is held out. Args: pictures: how many are trained on."""
    if not held.entries:
        return None
    config = all_bound(settings.train)
    examples = cached_examples(held, loaded.adapter, loaded.encoders, settings.data, config)

    log, stored = settings.output / LOG, stored_run_of(settings, None)
    best = BestFile(result_file(settings, "best"), settings.output / STATE)
    best.resume(measurements(log), 0 if stored is None else stored.step)

    def write(adapter: Adapter, step: int) -> None:
        write_result(settings, adapter, loaded.expert, pictures, step, "best")

    return HeldOutRecord(loaded.encoders.model, examples, config, log, best, write)


def measurements(log: Path) -> Rows:
    """The rows of the log with a measurement whose numbers are all finite, in the order of their steps."""
    names = [PREFIX + name for name in NUMBERS] + [f"{PREFIX}{name}_{share}" for name in NUMBERS for share in TIMESTEPS]
    return [row for row in read_log(log) if all(name in row for name in names)]


def plot_held_out(rows: Rows, target: Path) -> None:
    """Errors and shares of the router over the steps, and the newest errors over the timesteps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    panels = figure.subplots(1, 3)
    steps, best = [row["step"] for row in rows], best_step(rows)
    for panel, names, title in (
        (panels[0], NUMBERS[:2], "error inside the subjects, base model = 1"),
        (panels[1], NUMBERS[2:], "shares of the router"),
    ):
        for name in names:
            panel.plot(steps, [row[PREFIX + name] for row in rows], ".-", color=COLOURS[name], label=LABELS[name])
        panel.set(title=title, xlabel="step")
    if best is not None:
        panels[0].axvline(best, color="#999999", linestyle=":", label=f"best: step {best}")
    for name in NUMBERS:
        values = [rows[-1][f"{PREFIX}{name}_{share}"] for share in TIMESTEPS]
        panels[2].plot(TIMESTEPS, values, ".-", color=COLOURS[name], label=LABELS[name])
    panels[2].set(title=f"step {steps[-1]}", xlabel="timestep (1: noisiest)")
    for panel in panels:
        panel.legend(fontsize=8)
        panel.grid(alpha=0.3)
    figure.savefig(target, dpi=110, facecolor="white")
