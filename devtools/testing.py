"""Runs the test suites one after another, each in several processes, and lets no host or browser test be skipped."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

from . import venv
from .host import ROOT

SUITES = {"core": "torch alone, no host", "comfy": "the real host", "browser": "the real page in a real browser"}
WITHOUT_SKIPS = ("comfy", "browser")
SHORT = (
    "interfaces", "schema", "server", "live_run", "soak",
    "invariants", "text", "conditions", "refusals", "memory", "mini", "image_prompts", "neighbours", "other_packs", "crop",
)  # fmt: skip
"""The tests of the short form, as `tests/comfy/test_NAME.py`: what another release of ComfyUI can break."""
CORES = os.cpu_count() or 1
WORKERS = min(CORES, 4)
"""Processes that share the tests of a suite; few, as some tests hold a model of real width."""
REPORTS = ROOT / ".pytest_cache" / "reports"


def main(host: Path, suites: Sequence[str], pytest_arguments: list[str], short: bool = False) -> int:
    """Run the suites and return 0 only if every test of them ran and passed.

    Args: short: of the host's suite only the tests in `SHORT`.
    """
    failures = []
    for suite in suites:
        print(f"\n== {suite}: {SUITES[suite]} ==", flush=True)
        files = [f"tests/comfy/test_{name}.py" for name in SHORT] if short and suite == "comfy" else [f"tests/{suite}"]
        problem = _run(suite, files, host, pytest_arguments)
        if problem:
            failures.append(f"{suite}: {problem}")
    print()
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


def _run(suite: str, files: list[str], host: Path, arguments: list[str]) -> str | None:
    report = REPORTS / f"{suite}.xml"
    report.unlink(missing_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    # Arguments choose single tests or look into them: these run in one process, whose output `-s` and `--pdb` show.
    workers = 1 if arguments else WORKERS
    shared = [f"--numprocesses={workers}", "--dist=loadfile"] if workers > 1 else []
    command = ["-m", "pytest", *files, f"--junitxml={report}", *shared, *arguments]
    threads = str(CORES // workers)
    code = venv.run(*command, cwd=ROOT, COMFYUI_PATH=str(host), HF_HUB_OFFLINE="1", OMP_NUM_THREADS=threads)
    if code:
        return "no test ran" if code == 5 else f"pytest ended with code {code}"
    skipped = sum(int(result.get("skipped", 0)) for result in ElementTree.parse(report).getroot().iter("testsuite"))
    if skipped and suite in WITHOUT_SKIPS:
        return f"{skipped} tests were skipped; these must run"
    return None


def lint() -> int:
    """ruff and pyright over everything; pyright sees the pinned host's types."""
    commands = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["pyright"]]
    return max(venv.run("-m", *command, cwd=ROOT) for command in commands)
