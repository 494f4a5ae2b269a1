"""Ctrl-C and the signal of a closing machine end a run in order."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)
TOGETHER = 3.0
"""Seconds within which signals are one request: a launcher passes on what the terminal has sent to all already."""


class Stopped(SystemExit):
    """A signal ended the command; the exit code is the shells' one for it."""

    def __init__(self, number: int):
        super().__init__(128 + number)


class StopSignal:
    """The signal that a command received. In a block `held` it waits for the block, which reads `received`."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._since = 0.0
        self._waits = False

    def __call__(self, number: int, _frame: Any) -> None:
        if not self._waits:
            raise Stopped(number)
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            print("\nStopping after this step. A later signal stops at once.", file=sys.stderr)
        elif time.monotonic() - self._since > TOGETHER:
            raise Stopped(number)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, a signal is kept. After the block it ends the command."""
        self._waits = True
        try:
            yield
        finally:
            self._waits = False
        if self.received is not None:
            raise Stopped(self.received)


@contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Inside, SIGINT and SIGTERM raise `Stopped`, or are held."""
    stop = StopSignal()
    before = [signal.signal(number, stop) for number in SIGNALS]
    try:
        yield stop
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)
