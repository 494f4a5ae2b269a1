"""Train an adapter: `python dev.py train config.toml`. Killed at any moment, the same command resumes.

Ctrl-C, and the signal with which schedulers and closing machines end programs, save the state after the step that is being done.
Several processes: `accelerate launch` in front of `recipes/run.py adapter.train config.toml`.
"""

import sys
import uuid
from collections.abc import Iterator

from ...moa_attention.adapters.base import Adapter
from ...moa_attention.training.cache.entries import CachedPictures
from ...moa_attention.training.cache.sharing import CacheShare
from ...moa_attention.training.precision import has_fast_bfloat16
from ...moa_attention.training.saved.files import go_back
from ...moa_attention.training.saved.settings import read_run
from ...nodes.host.training.data import cached_examples
from ...nodes.host.training.trainer import TrainingSession
from .best import step_of
from .commands import Request, read_request
from .data import divide, fill_cache, read_all_folders
from .find_rate import find_rate
from .held_out import PLOT
from .journal import Journal
from .models import LoadedModels, load_models
from .preparation.batches import draw_batches
from .preparation.contact import write_sheets
from .result import write_result
from .run_files import STATE, result_file, run_settings, stored_run_of
from .settings import Settings
from .stopping import Stopped, StopSignal, stop_signals
from .tracking import tracking_accelerator
from .workers import Accelerated, lost_workers


def main(argv: list[str]) -> None:
    """Check, cache, train, save."""
    request = read_request("train", argv)
    with stop_signals() as stop:
        try:
            run(request, stop)
        except Stopped:
            stored = read_run(request.settings.output / STATE)
            step = 0 if stored is None else stored.step
            print(f"train: stopped. The same command resumes after step {step}.", file=sys.stderr)
            raise
        except (ValueError, OSError) as error:  # what users can mend; all other errors are faults of ours
            sys.exit(f"train: {error}")


def run(request: Request, stop: StopSignal) -> None:
    """Load the models, fill the cache, train, and write the result in the first process."""
    settings, workers = request.settings, Accelerated(tracking_accelerator(request.settings))
    if workers.rank == 0:
        print(*remarks(request, workers), sep="", end="")
    settings.output.mkdir(parents=True, exist_ok=True)
    pictures = read_all_folders(settings)
    pictures.check_any()
    loaded = load_models(settings)
    only_looks = request.options.dry_run or request.options.find_rate
    if workers.rank == 0 and request.options.from_step is not None and not only_looks:
        go_back(settings.output / STATE, request.options.from_step)
    share = CacheShare(workers.rank, workers.count, workers.of_first(uuid.uuid4().hex))
    cached = fill_cache(settings, loaded, pictures, share)
    cached, held = divide(cached, settings.data.held_out)
    if only_looks:
        look(request, loaded, cached, workers)
        return
    journal = None
    if workers.rank == 0:
        journal = Journal(settings, loaded, pictures, cached, held, request.notes, workers.accelerator)
    try:
        with stop.held(), lost_workers():
            trained = run_session(settings, loaded, cached, workers, journal, stop)
    finally:
        if journal is not None:
            journal.close()
    if workers.rank == 0:
        stored = read_run(settings.output / STATE)
        assert stored is not None
        print(write_result(settings, trained, loaded.expert, len(cached.entries), stored.step))
        print(*best_remark(settings, stored.step), sep="", end="")


def look(request: Request, loaded: LoadedModels, cached: CachedPictures, workers: Accelerated) -> None:
    """What `--dry-run` and `--find-rate` do instead of the training."""
    settings = request.settings
    if request.options.dry_run:
        if workers.rank == 0:
            stored = stored_run_of(settings, request.options.from_step)
            show_batches(settings, loaded, cached, 0 if stored is None else stored.step)
        return
    found = find_rate(settings, loaded, cached, workers)
    if workers.rank == 0:
        print(found)


def best_remark(settings: Settings, last: int) -> Iterator[str]:
    """A line on the adapter with the lowest held-out error, when it is not that of the last step."""
    file = result_file(settings, "best")
    best = step_of(file)
    if settings.data.held_out and best not in (None, last):
        yield (
            f"The error on the held-out pictures was lowest at step {best}: {file} is the adapter of that step. "
            f"{settings.output / PLOT} shows the course.\n"
        )


def remarks(request: Request, workers: Accelerated) -> Iterator[str]:
    """What the user should know beforehand, each on a line."""
    if request.settings.train.precision == "bfloat16" and not has_fast_bfloat16(workers.accelerator.device):
        yield "This CPU has no instructions for bfloat16. The run computes in float32.\n"
    if request.settings.train.optimiser == "prodigy" and request.settings.train.learning_rate < 0.1:
        yield "Prodigy multiplies its own estimate of the learning rate by train.learning_rate. Its authors use 1.\n"
    yield from (f"{note}\n" for note in request.notes)


def show_batches(settings: Settings, loaded: LoadedModels, cached: CachedPictures, step: int) -> None:
    """Draw the batches that the run would take after a step."""
    folder = settings.output / "dry_run"
    folder.mkdir(exist_ok=True)
    examples = cached_examples(cached, loaded.adapter, loaded.encoders, settings.data, settings.train)
    cells = draw_batches(examples, loaded.encoders, settings.data, settings.train, step)
    written = write_sheets(cells, folder, "batches")
    print(f"The batches from step {step + 1} on are in {', '.join(map(str, written))}. Nothing was trained.")


def run_session(
    settings: Settings,
    loaded: LoadedModels,
    cached: CachedPictures,
    workers: Accelerated,
    journal: Journal | None,
    stop: StopSignal,
) -> Adapter:
    """The training itself."""
    encoders, adapter, config = loaded.encoders, loaded.adapter, settings.train
    examples = cached_examples(cached, adapter, encoders, settings.data, config)
    session = TrainingSession(
        encoders.model, adapter, config, settings.output / STATE, journal or no_log, lambda: stop.received is None,
        workers, run_settings(settings),
    )  # fmt: skip
    return session.run(examples)


def no_log(_step: int, _numbers: dict[str, float], _averaged: Adapter) -> None:
    """For all processes but the first."""
