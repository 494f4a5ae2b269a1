"""Run random workflows on one real server, which is freed, interrupted and robbed of its files: `python dev.py soak --prompts 500`.

The server must live, every failure must be a sentence, the memory after `/free` must not grow by more than 2 %, and the last
pictures must equal those of a fresh server. A prompt is made again by the seed and its number.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), *(str(ROOT / "tests" / folder) for folder in ("core", "comfy", "soak"))]

from devtools import host, in_process  # noqa: E402


def main(argv: list[str]) -> int:
    """The exit code is 1 when there was a problem."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--prompts", type=int, default=500, help="prompts in all (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other prompts (default: 0)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="moa-soak-") as folder:
        in_process.import_host(host.find(), base=Path(folder) / "in_process")
        in_process.import_pack()
        from soaking import Result, soak

        result: Result = soak(options.prompts, options.seed, Path(folder))
    print(f"{options.prompts} prompts in {result.seconds:.0f} s, seed {options.seed}: {dict(result.counted)}")
    print(f"disturbances: {dict(result.disturbed)}")
    print(f"memory after /free, MiB: {[round(held) for held in result.mebibytes]}, growth {result.growth:.1%}")
    print(*(result.problems or ["no problems"]), sep="\n")
    return bool(result.problems)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
