"""Change valid files of every reader at random: `python dev.py fuzz --count 1000000`. Any change can be made again by its number.

Each changed file must be loaded, or refused by one sentence that names it, in bounded time and memory.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "core"), str(ROOT / "tests" / "fuzz")]

import attempts  # noqa: E402

from devtools import host, in_process  # noqa: E402

MEMORY = Path("/dev/shm")
"""Files in memory, where the system has that."""


def main(argv: list[str]) -> int:
    """Sweep over the readers in turn; the exit code is 1 when any change had a problem."""
    options = parse(argv)
    in_process.import_host(host.find(), base=Path(tempfile.mkdtemp(prefix="moa-fuzz-")))
    in_process.import_pack()
    logging.disable(logging.WARNING)
    from core_readers import core_readers
    from host_readers import host_readers

    readers = [reader for reader in (*core_readers(), *host_readers()) if options.only in reader.name]
    shares = sum(reader.share for reader in readers)
    total: Counter[str] = Counter()
    problems: list[attempts.Problem] = []
    begin = time.monotonic()
    for reader in readers:
        count = math.ceil(options.count * reader.share / shares)
        indices = range(options.start, options.start + count)
        with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
            counted, found = attempts.sweep(reader, Path(folder), options.seed, indices)
        total += counted
        problems += found
        print(f"{reader.name:26} {dict(counted)}", *(f"\n  {p.index}: {p.text}" for p in found[:5]), flush=True)
    print(f"{total.total()} changes of {len(readers)} kinds of files in {time.monotonic() - begin:.0f} s, seed {options.seed}: "
          f"{total['loaded']} loaded, {total['refused']} refused, {len(problems)} problems")  # fmt: skip
    return bool(problems)


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="changes in all (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other changes (default: 0)")
    parser.add_argument("--start", type=int, default=0, help="the number of the first change (default: 0)")
    parser.add_argument("--only", default="", help="only the readers whose names contain this text")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
