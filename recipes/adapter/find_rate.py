"""`train --find-rate`: a learning rate for the run, found on a fresh adapter. The run's states and log stay as they are."""

from collections.abc import Sequence
from pathlib import Path

from ...moa_attention.training.cache.entries import CachedPictures
from ...moa_attention.training.rate_finder import SAFE, STEPS, RateLoss, rising_losses, suggested_rate
from ...moa_attention.training.workers import Workers
from ...nodes.host.model.patch import host_patcher
from ...nodes.host.training.base import HostBase
from ...nodes.host.training.data import cached_examples
from ...nodes.host.training.trainer import training_mode
from .models import LoadedModels
from .settings import Settings

PLOT = "learning_rate.png"


def find_rate(settings: Settings, loaded: LoadedModels, cached: CachedPictures, workers: Workers) -> str:
    """Train a fresh adapter for some steps, and draw the curve in the first process. Returns: the result in sentences."""
    model, config = loaded.encoders.model, settings.train
    examples = cached_examples(cached, loaded.adapter, loaded.encoders, settings.data, config)
    with training_mode(model, config):
        adapter = loaded.adapter.to(model.load_device)
        curve = rising_losses(adapter, HostBase(model, host_patcher(adapter)), examples, config, workers, STEPS)
    rate, target = suggested_rate(curve), settings.output / PLOT
    if workers.rank == 0 and curve:
        plot_rates(curve, rate, target)
    if rate is None:
        return f"No learning rate lowered the loss within {STEPS} steps. The settings of the run are unchanged."
    return (
        f"Suggested: train.learning_rate = {rate:.1e}, a {SAFE:.0f}th of the one with the lowest loss. {target} shows the curve. "
        "Nothing of the run was changed."
    )


def plot_rates(curve: Sequence[RateLoss], rate: float | None, target: Path) -> None:
    """Losses over the learning rates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.semilogx([point.rate for point in curve], [point.loss for point in curve], color="#3b6ea5")
    if rate is not None:
        panel.axvline(rate, color="#999999", linestyle=":", label=f"suggested: {rate:.1e}")
        panel.legend(fontsize=8)
    panel.set(xlabel="learning rate", ylabel="loss, untrained adapter = 1")
    panel.grid(alpha=0.3)
    figure.savefig(target, dpi=110, facecolor="white")
