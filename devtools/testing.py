"""Runs the test suites, each in a process of its own, and lets no host or browser test be skipped."""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from .environment import ROOT, python

SUITES = {"core": "torch alone, no host", "comfy": "the real host", "browser": "the real page in a real browser"}
WITHOUT_SKIPS = ("comfy", "browser")
REPORTS = ROOT / ".pytest_cache" / "reports"


def main(host: Path, chosen: list[str], pytest_arguments: list[str]) -> int:
    """Run the chosen suites (all if none) and return 0 only if every test of them ran and passed."""
    failures = []
    for suite in chosen or list(SUITES):
        print(f"\n== {suite}: {SUITES[suite]} ==", flush=True)
        problem = _run(suite, host, pytest_arguments)
        if problem:
            failures.append(f"{suite}: {problem}")
    print()
    for failure in failures:
        print(f"FAILED {failure}")
    return 1 if failures else 0


def _run(suite: str, host: Path, arguments: list[str]) -> str | None:
    report = REPORTS / f"{suite}.xml"
    report.unlink(missing_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    command = [str(python()), "-m", "pytest", f"tests/{suite}", f"--junitxml={report}", *arguments]
    environment = {**os.environ, "COMFYUI_PATH": str(host), "HF_HUB_OFFLINE": "1"}
    code = subprocess.run(command, cwd=ROOT, env=environment).returncode
    if code:
        return "no test ran" if code == 5 else f"pytest ended with code {code}"
    skipped = sum(int(result.get("skipped", 0)) for result in ElementTree.parse(report).getroot().iter("testsuite"))
    if skipped and suite in WITHOUT_SKIPS:
        return f"{skipped} tests were skipped; these must run"
    return None


def lint() -> int:
    """ruff and pyright over everything; pyright sees the pinned host's types."""
    commands = [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["pyright"]]
    return max(subprocess.run([str(python()), "-m", *command], cwd=ROOT).returncode for command in commands)
