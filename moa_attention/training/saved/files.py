"""The files of a run's states: the newest, the one before, and those that are kept for ever."""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path

from ...formats.atomic import replacing
from ...formats.tensors import StoredFileError, read_metadata


def previous(path: Path) -> Path:
    """Where the state before the newest, `path`, is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def at_step(path: Path, step: int) -> Path:
    """Where the state of a step is kept for ever."""
    return path.with_name(f"{path.stem}.step{step:07}{path.suffix}")


def states(path: Path) -> dict[int, Path]:
    """The readable states of a run by their steps, in the order of the steps."""
    found: dict[int, Path] = {}
    kept = path.parent.glob(f"{glob.escape(path.stem)}.step*{glob.escape(path.suffix)}")
    for candidate in (*kept, previous(path), path):
        try:
            found[int(read_metadata(candidate)["step"])] = candidate
        except (StoredFileError, KeyError, ValueError):
            continue
    return dict(sorted(found.items()))


def go_back(path: Path, step: int) -> None:
    """Make a kept state the newest one. The newest so far, if it is of another step, is kept under its step.

    Raises: KeyError when no state of this step is kept.
    """
    present, source = newest(path), states(path)[step]
    if present is not None:
        keep(present, at_step(path, int(read_metadata(present)["step"])))
    if source != path:
        keep(source, at_step(path, step))
        with replacing(path) as part:
            shutil.copyfile(at_step(path, step), part)
    previous(path).unlink(missing_ok=True)


def keep(path: Path, other: Path) -> None:
    """Make `other` a second name of a file, or a copy where the file system has no hard links."""
    if other == path:
        return
    other.unlink(missing_ok=True)
    try:
        os.link(path, other)
    except OSError:
        shutil.copyfile(path, other)


def newest(path: Path) -> Path | None:
    """The newest state that can be read, `path` or the one before; None when there is no file.

    Raises: StoredFileError when there are files and all are damaged.
    """
    files = [candidate for candidate in (path, previous(path)) if candidate.is_file()]
    for candidate in files:
        try:
            read_metadata(candidate)
        except StoredFileError:
            continue
        return candidate
    if files:
        raise StoredFileError(
            files[0],
            "and every other state of this run are cut or damaged. Put a copy in its place, or delete them to start the run "
            "again.",
        )
    return None
