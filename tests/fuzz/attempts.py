"""One changed file after the other: each is loaded, or refused by one sentence that names the file, in bounded time and memory."""

from __future__ import annotations

import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mutations import Mutation

SECONDS, LENGTH = 10.0, 2500
"""Limits of one file: processor time, characters of a message."""


class Reader(NamedTuple):
    """Something that reads files."""

    name: str
    file: str
    """Path inside the folder that `write` fills; this file is changed."""
    write: Callable[[Path], None]
    """Fills a folder with valid files."""
    read: Callable[[Path], Any]
    """Reads what is in the folder."""
    refusal: type[Exception] | tuple[type[Exception], ...]
    mutations: Sequence[Mutation]
    names_file: bool = True
    """Whether a refusal begins with the path of the file."""
    mebibytes: float = 256
    """By how much the process may grow."""
    share: float = 1
    """How many changes it gets, relative to a reader of small files."""


class Problem(NamedTuple):
    """A file that was neither loaded nor refused properly; `index` and the seed make it again."""

    reader: str
    index: int
    text: str


def attempt(reader: Reader, folder: Path, content: bytes) -> str:
    """Read a changed file: "loaded", "refused", or the description of a problem."""
    path = folder / reader.file
    path.write_bytes(content)
    size, begin = memory(), time.process_time()
    try:
        with alarm():
            reader.read(folder)
        outcome = "loaded"
    except reader.refusal as error:
        outcome = checked_message(reader, path, str(error))
    except Exception as error:
        outcome = f"raw {type(error).__name__}: {last_line(error)}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        outcome = f"raw {type(error).__name__}: {error}"
    if time.process_time() - begin > SECONDS:
        return f"slow: {time.process_time() - begin:.1f} s, then {outcome}"
    if memory() - size > reader.mebibytes:
        return f"large: {memory() - size:.0f} MiB, then {outcome}"
    return outcome


def checked_message(reader: Reader, path: Path, message: str) -> str:
    """ "refused", or what is wrong with the message."""
    if len(message.splitlines()) != 1 or len(message) > LENGTH or not message.isprintable():
        return f"message of several lines or characters: {message!r}"
    if reader.names_file and not message.startswith(f"'{path}' "):
        return f"message without the file: {message!r}"
    return "refused"


def last_line(error: Exception) -> str:
    """The error and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{str(error)[:300]!r} at {frame.filename}:{frame.lineno}"


@contextmanager
def alarm() -> Iterator[None]:
    """Ends what hangs, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TimeoutError("more than 60 seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def memory() -> float:
    """The largest size of this process so far, in MiB; 0 where the system has no record."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def sweep(reader: Reader, folder: Path, seed: int, indices: range) -> tuple[Counter[str], list[Problem]]:
    """Try the changes with these numbers: -> how many were loaded and refused, and the problems."""
    reader.write(folder)
    valid = (folder / reader.file).read_bytes()
    reader.read(folder)  # what is not changed must load
    counted: Counter[str] = Counter()
    problems = []
    for index in indices:
        outcome = attempt(reader, folder, changed(reader, valid, seed, index))
        counted[outcome if outcome in ("loaded", "refused") else "problem"] += 1
        if outcome not in ("loaded", "refused"):
            problems.append(Problem(reader.name, index, outcome))
    return counted, problems


def changed(reader: Reader, valid: bytes, seed: int, index: int) -> bytes:
    """The file with one change, seldom two."""
    r = random.Random(f"{seed} {reader.name} {index}")
    content = r.choice(reader.mutations)(r, valid)
    if r.random() < 0.1:
        try:
            content = r.choice(reader.mutations)(r, content)
        except Exception:  # the first change left nothing that the second could parse
            return content
    return content
