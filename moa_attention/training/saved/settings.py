"""The settings of a run beside those of its earlier sessions: what may change is noted, what may not is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...formats.errors import StoredFileError, printable
from ...formats.tensors import read_metadata
from ..rules import rule_of
from .files import newest


class RunMismatch(ValueError):
    """A run cannot be resumed with these settings; the message names the setting and both values."""


@dataclass(frozen=True)
class RunSettings:
    """All settings of a run, under the names that its user knows."""

    values: Mapping[str, Any]
    """As JSON keeps them."""
    fixed: frozenset[str]
    """Those that a resumed run must not change."""

    @classmethod
    def of(cls, *configs: Any, **tables: Any) -> RunSettings:
        """Those of config objects. With the name of a table, each name is `table.field`, as in a config file."""
        values: dict[str, Any] = {}
        fixed: set[str] = set()
        for prefix, config in [*(("", c) for c in configs), *((f"{t}.", c) for t, c in tables.items())]:
            for entry in fields(config):
                values[prefix + entry.name] = getattr(config, entry.name)
                if rule_of(entry).fixed:
                    fixed.add(prefix + entry.name)
        return cls(stored_values(values), frozenset(fixed))

    def with_values(self, values: Mapping[str, Any], *, fixed: bool = False) -> RunSettings:
        """These and others; the other values replace those of the same name.

        Args: fixed: whether a run keeps the other values.
        """
        names = frozenset(values) if fixed else frozenset()
        return RunSettings({**self.values, **stored_values(values)}, self.fixed | names)

    def changes_since(self, earlier: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """The earlier and the present value of each setting that both sessions have and that differs."""
        return {
            name: (earlier[name], value)
            for name, value in self.values.items()
            if name in earlier and earlier[name] != value
        }


def stored_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are kept; a config object among them by its fields."""
    return json.loads(json.dumps(dict(values), default=lambda v: vars(v) if is_dataclass(v) else str(v)))


class StoredRun(NamedTuple):
    """What the newest state of a run states about itself."""

    step: int
    settings: Mapping[str, Any]
    """Of its last session; empty in states of early versions."""
    changes: list[dict[str, Any]]
    """Of all sessions: `{"step": n, name: [before, after], ...}`."""


def read_run(state: Path) -> StoredRun | None:
    """The header of a run's newest readable state; None when there is none.

    Raises: StoredFileError when the states that exist are damaged, or as `stored_run`.
    """
    found = newest(state)
    return None if found is None else stored_run(found, read_metadata(found))


def stored_run(path: Path, metadata: Mapping[str, str]) -> StoredRun:
    """From the metadata of a state.

    Raises: StoredFileError when they are no record of a run.
    """
    try:
        step, settings, changes = (
            json.loads(metadata.get(k, d)) for k, d in (("step", ""), ("settings", "{}"), ("changes", "[]"))
        )
    except (ValueError, RecursionError) as error:
        raise no_state(path, error) from error
    listed = isinstance(changes, list) and all(isinstance(change, dict) for change in changes)
    if not (type(step) is int and step >= 0 and isinstance(settings, dict) and listed):
        raise no_state(path, "a part of its header has another type")
    return StoredRun(step, settings, changes)


def no_state(path: Path, problem: object) -> StoredFileError:
    """The error for a file that holds no complete state of a run."""
    return StoredFileError(
        path,
        f"is no complete state of a run ({printable(problem)}). Put a copy in its place, or delete it to resume from the "
        "state before it.",
    )


def check_run(state: Path, stored: StoredRun, now: RunSettings, steps: int) -> list[str]:
    """A sentence for each setting that changed since the last session.

    Raises: RunMismatch when a setting must not change, or fewer steps are wanted than the run has done.
    """
    changes = now.changes_since(stored.settings)
    wrong = [name for name in changes if name in now.fixed]
    if wrong:
        listed = ", ".join(f"{name} {shown(changes[name][0])}, now {shown(changes[name][1])}" for name in wrong)
        raise RunMismatch(
            f"The run of '{state}' cannot be resumed with other settings of this kind: {listed}. Use the earlier values, "
            "or start another run under another name."
        )
    if steps < stored.step:
        raise RunMismatch(
            f"The run of '{state}' has done {stored.step} steps, but steps is {steps}. It must not be lower. Start "
            "another run under another name for a shorter one."
        )
    return [
        f"{name} was {shown(a)} and is {shown(b)} from step {stored.step + 1} on." for name, (a, b) in changes.items()
    ]


def shown(value: Any) -> str:
    """A value in a message; empty ones have a word."""
    return "empty" if value in ("", []) else str(value)
