"""Runs the short form of the host's tests on releases of ComfyUI, one after the other, and writes the table of results.

.venv/bin/python -m devtools.host_table            # all releases of host-sources.txt
.venv/bin/python -m devtools.host_table 0.16.3     # one of them; the other rows stay
"""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

from .host import DEFAULT, ROOT, releases
from .testing import REPORTS, SHORT

PAGE = ROOT / "docs" / "compatibility.md"
MARKS = "<!-- hosts -->\n", "<!-- end -->"
HEAD = "| ComfyUI | tests | passed | failed |\n|---|---|---|---|\n"


def main(versions: list[str]) -> int:
    """The exit code is 1 when a test failed on one of the releases."""
    rows = [run(version) for version in versions or releases()]
    PAGE.write_text(with_rows(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return int(any(not row.endswith("| 0 |") for row in rows))


def run(version: str) -> str:
    """The row of a release."""
    report = REPORTS / "comfy.xml"
    report.unlink(missing_ok=True)
    subprocess.run([sys.executable, str(ROOT / "dev.py"), "test", "--short", "--host", version])
    counts = [0, 0, 0]
    for suite in ElementTree.parse(report).getroot().iter("testsuite") if report.is_file() else ():
        found = [int(suite.get(name, 0)) for name in ("tests", "failures", "errors")]
        counts = [total + number for total, number in zip(counts, found, strict=True)]
    tests, failed = counts[0], counts[1] + counts[2]
    name = f"{version} (default)" if version == DEFAULT else version
    return f"| {name} | {len(SHORT)} files | {tests - failed} | {failed if tests else 'all'} |"


def with_rows(page: str, rows: list[str]) -> str:
    """The page with these rows in its table; rows of other releases are kept."""
    table = re.search(f"{MARKS[0]}(.*?){MARKS[1]}", page, re.DOTALL)
    assert table is not None, f"{PAGE} has no table between {MARKS}"
    by_version = {key(row): row for row in [*table.group(1).splitlines()[2:], *rows]}
    ordered = "".join(f"{by_version[version]}\n" for version in sorted(by_version))
    return page[: table.start()] + MARKS[0] + HEAD + ordered + MARKS[1] + page[table.end() :]


def key(row: str) -> tuple[int, ...]:
    """The version that a row begins with."""
    found = re.match(r"\| ([\d.]+)", row)
    assert found is not None, row
    return tuple(map(int, found.group(1).split(".")))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
