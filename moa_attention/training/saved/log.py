"""The log of a run: JSON lines, one for each step, and one for each change of its settings."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...formats.atomic import replacing

logger = logging.getLogger(__name__)


class RunLog:
    """The log file of a run. A session that repeats steps after a kill replaces their lines.

    Args: digits: to round numbers to; None keeps every bit.
    """

    def __init__(self, path: Path, digits: int | None = None):
        self.path, self.digits, self.opened = path, digits, False

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step; those that are NaN or infinite, which JSON does not know, are left out."""
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        digits = self.digits
        self._add(step, finite if digits is None else {name: round(value, digits) for name, value in finite.items()})

    def note(self, step: int, text: str) -> None:
        """Add a sentence on what happened after a step, before the next."""
        self._add(step, {"note": text})

    def _add(self, step: int, entries: Mapping[str, Any]) -> None:
        if not self.opened:
            keep_rows(self.path, step if "note" in entries else step - 1)
            self.opened = True
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **entries}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log in their order; lines that are cut or damaged are left out, a missing file has none."""
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def keep_rows(path: Path, last: int) -> None:
    """Keep what a session that begins after this step finds: numbers up to it, and notes on earlier steps.

    The file is written only where that changes it.
    """
    if not path.is_file():
        return
    text, rows = path.read_text(encoding="utf-8", errors="replace"), read_log(path)
    lines = sum(bool(line.strip()) for line in text.splitlines())
    if lines > len(rows):
        logger.warning("'%s' has %d lines that are cut or damaged; they are removed.", path, lines - len(rows))
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] + ("note" in row) <= last)
    if kept != text:
        with replacing(path) as part:
            part.write_text(kept, encoding="utf-8")


def read_losses(path: Path) -> list[float]:
    """The loss of every step of a run that has one, in order; of a step that was repeated, the last."""
    by_step = {row["step"]: row["loss"] for row in read_log(path) if isinstance(row.get("loss"), int | float)}
    return [by_step[step] for step in sorted(by_step)]
