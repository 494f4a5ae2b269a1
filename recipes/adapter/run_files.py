"""The output folder of a run: its files, its states, and what it keeps of its settings."""

from collections.abc import Sequence
from pathlib import Path

from ...moa_attention.training.saved.files import states
from ...moa_attention.training.saved.settings import RunSettings, StoredRun, read_run
from .settings import Settings, SettingsError

STATE, LOG, ADAPTER, ROUTERS = "state.safetensors", "log.jsonl", "adapter.safetensors", "routers.safetensors"
"""Files of the output folder."""


def result_file(settings: Settings, variant: str = "") -> Path:
    """The file of what a run trains. Args: variant: a word in its name, for weights that are not those of the last step."""
    path = settings.output / (ROUTERS if settings.train.only_routers else ADAPTER)
    return path.with_name(f"{path.stem}.{variant}{path.suffix}") if variant else path


def stored_run_of(settings: Settings, step: int | None) -> StoredRun | None:
    """The state that a run resumes from: the newest, or the one of a step; None when there is none.

    Raises: SettingsError when no state of the step is kept.
    """
    path = settings.output / STATE
    return read_run(path) if step is None else read_run(chosen_states(path, [step])[step])


def chosen_states(path: Path, steps: Sequence[int]) -> dict[int, Path]:
    """The states of these steps of a run, or its newest one.

    Raises: SettingsError when there is none, or that of a step is not kept.
    """
    found, newest = states(path), read_run(path)
    if newest is None:
        raise SettingsError(f"output: {path.parent.resolve()} contains no state of a run.")
    missing = [step for step in steps if step not in found]
    if missing:
        raise SettingsError(
            f"No state of step {missing[0]} is kept in {path.parent.resolve()}. There are those of {', '.join(map(str, found))}. "
            "train.keep_every keeps more."
        )
    return {step: found[step] for step in steps or [newest.step]}


def run_settings(settings: Settings) -> RunSettings:
    """What a run keeps of its settings. Models are known by their names, so that their folder may change."""
    kept = RunSettings.of(models=settings.models, data=settings.data, adapter=settings.adapter, train=settings.train)
    files = ("models.checkpoint", "models.vae", "models.clip_vision", "adapter.start")
    return kept.with_values({name: Path(kept.values[name]).name for name in files})


def finished(settings: Settings, stored: StoredRun | None) -> str:
    """A sentence on a run that has done its steps and written its result; empty for any other."""
    result = result_file(settings)
    if stored is None or stored.step != settings.train.steps or not result.is_file():
        return ""
    return (
        f"This run is finished: its {stored.step} steps are done and the result is {result}. Raise train.steps to continue "
        "it, or choose another output."
    )
