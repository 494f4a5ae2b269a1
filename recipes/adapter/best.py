"""The adapter with the lowest error on the held-out pictures, for every step at which a run can be resumed.

`adapter.best.safetensors` is that of the whole run. A run that goes back to an earlier state, by `--from-step` or because it
was killed, gets the best one of that time back. The files are hard links where the file system has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...moa_attention.formats.tensors import StoredFileError, read_metadata
from ...moa_attention.training.held_out import PREFIX, RIGHT, WRONG
from ...moa_attention.training.saved.files import at_step, keep, states

Rows = Sequence[Mapping[str, Any]]
"""Of the log: those with a measurement, in the order of their steps."""


def best_step(rows: Rows) -> int | None:
    """The step with the lowest error with the right reference, among those in which a wrong reference is worse."""
    useful = [row for row in rows if row[PREFIX + RIGHT] < row[PREFIX + WRONG]]
    return min(useful, key=lambda row: row[PREFIX + RIGHT])["step"] if useful else None


def step_of(path: Path) -> int | None:
    """The step of the adapter or the routers in a file; None when there is no file, or it does not state one."""
    try:
        return json.loads(read_metadata(path)["provenance"])["step"]
    except (StoredFileError, KeyError, TypeError, ValueError):
        return None


class BestFile:
    """The file of the best step, and those that were the best at an earlier state.

    Args:
        path: of the best of the whole run.
        state: of the run; `files.states` lists those that it can be resumed from.
    """

    def __init__(self, path: Path, state: Path):
        self.path, self.state = path, state

    def resume(self, rows: Rows, last: int) -> None:
        """Bring back what was the best up to the step after which a session begins.

        A file of a later step is kept under its step; nothing is deleted.
        """
        present, wanted = step_of(self.path), best_step([row for row in rows if row["step"] <= last])
        if present == wanted:
            return
        if present is not None and present > last:
            self.path.replace(at_step(self.path, present))
        if wanted is not None and at_step(self.path, wanted).is_file():
            keep(at_step(self.path, wanted), self.path)

    def is_best(self, rows: Rows, step: int) -> bool:
        """Whether a step is better than that of the file."""
        return best_step([row for row in rows if row["step"] in (step, step_of(self.path))]) == step

    def written(self, rows: Rows, step: int) -> None:
        """After the best of a step was written: keep it under its step, and remove what no state needs."""
        keep(self.path, at_step(self.path, step))
        needed = {best_step([row for row in rows if row["step"] <= last]) for last in states(self.state)} | {step}
        for row in rows:
            if row["step"] not in needed:
                at_step(self.path, row["step"]).unlink(missing_ok=True)
