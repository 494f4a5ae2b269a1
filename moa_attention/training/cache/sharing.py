"""The processes that fill a cache: each makes its own shards, and waits for the others through files in the folder.

No process waits in a collective operation, which would end after minutes. A process that stops without a word is noticed
by the age of its file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...formats.atomic import replacing
from .manifest import ShardRecord, as_records

EVERY = 1.0
"""Seconds between two reports of a process, and between two looks at those of the others."""
PATIENCE = 600.0
"""Seconds without a report after which a process counts as lost (ours). Reading one picture takes far less."""


class LostProcess(ValueError):
    """Another process of the run ended; the message is for users."""


@dataclass
class CacheShare:
    """This process's part of a cache.

    Args:
        run: distinguishes this filling of the cache from earlier ones; the same in all processes.
    """

    rank: int = 0
    count: int = 1
    run: str = ""
    patience: float = PATIENCE
    _reported: float = field(default=0.0, init=False)
    _looked: float = field(default=0.0, init=False)
    _others: int = field(default=0, init=False)

    def owns(self, number: int) -> bool:
        """Whether this process makes the shard of this number."""
        return number % self.count == self.rank

    def report(self, folder: Path, done: int, **more: Any) -> None:
        """Write how many pictures of its part are done, at most every `EVERY` seconds.

        Args: more: is written at once: `shards` when the part is complete, `failed` when it cannot be completed.
        """
        if self.count == 1 or (time.monotonic() - self._reported < EVERY and not more):
            return
        content = json.dumps({"run": self.run, "done": done, **more})
        with replacing(self.file(folder, self.rank)) as part:
            part.write_text(content, encoding="utf-8")
        self._reported = time.monotonic()

    def read(self, folder: Path, rank: int) -> Mapping[str, Any]:
        """The last report of a process in this run; empty when there is none."""
        try:
            found = json.loads(self.file(folder, rank).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) and found.get("run") == self.run else {}

    def others_done(self, folder: Path) -> int:
        """How many pictures the other processes have done, as of at most `EVERY` seconds ago."""
        if self.count > 1 and time.monotonic() - self._looked >= EVERY:
            others = (rank for rank in range(self.count) if rank != self.rank)
            self._others = sum(int(self.read(folder, rank).get("done", 0)) for rank in others)
            self._looked = time.monotonic()
        return self._others

    def wait(self, folder: Path, progress: Callable[[int], None]) -> dict[str, ShardRecord]:
        """Wait for the parts of all other processes. Returns: the records of their shards.

        Args: progress: called with the pictures that the others have done.
        Raises: LostProcess when one failed, or has not advanced for `patience` seconds.
        """
        if self.count == 1:
            return {}
        complete: dict[int, dict[str, ShardRecord]] = {}
        seen = {rank: (self.read(folder, rank), time.monotonic()) for rank in range(self.count) if rank != self.rank}
        while True:
            for rank, (before, since) in seen.items():
                report = self.read(folder, rank) or before
                seen[rank] = (report, since if report == before else time.monotonic())
                if "failed" in report:
                    raise LostProcess(f"Process {rank} could not fill its part of the cache: {report['failed']}")
                if "shards" in report:
                    complete[rank] = as_records(report["shards"])
                elif time.monotonic() - seen[rank][1] > self.patience:
                    raise LostProcess(
                        f"Process {rank} has not advanced in its part of the cache for {self.patience / 60:g} minutes. It seems "
                        "to be lost. The same command resumes."
                    )
            progress(sum(int(report.get("done", 0)) for report, _ in seen.values()))
            if len(complete) == len(seen):
                return {name: record for part in complete.values() for name, record in part.items()}
            time.sleep(EVERY / 4)

    @staticmethod
    def file(folder: Path, rank: int) -> Path:
        """Where a process reports."""
        return folder / f"part.{rank}.json"
