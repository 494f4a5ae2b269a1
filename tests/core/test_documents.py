"""The documents: every link leads somewhere, and the help pages of the nodes agree in all their languages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "web" / "docs"
FOLDERS = ("docs", "weights", "recipes", "web", "benchmarks", "example_workflows")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(\s*([^)\s]+)\s*\)|(?:src|href)=\"([^\"]+)\"")
INPUT = re.compile(r"[a-z][a-z_]*")


def documents() -> Iterator[Path]:
    yield from ROOT.glob("*.md")
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.md")


def links(text: str) -> Iterator[str]:
    """Of Markdown and of HTML, without those to other sites."""
    for match in LINK.finditer(CODE.sub("", text)):
        link = match[1] or match[2]
        if not re.match(r"[a-z]+:", link):
            yield link


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).strip().lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", list(documents()), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path):
    for link in links(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def explained(page: Path) -> set[str]:
    """The inputs and outputs that a help page explains, which it writes in bold at the beginning of an entry."""
    starts = re.findall(r"^- (\*\*.+?)[:：]", page.read_text(encoding="utf-8"), re.MULTILINE)
    bold = (name for start in starts for name in re.findall(r"\*\*(.+?)\*\*", start))
    return {word for name in bold for word in INPUT.findall(name)}


@pytest.mark.parametrize("page", sorted(HELP.glob("*.md")), ids=lambda page: page.stem)
def test_the_chinese_help_explains_what_the_english_does(page: Path):
    """Names in italics are the titles of other nodes and the choices of inputs, which stay English."""
    chinese = HELP / page.stem / "zh.md"
    assert explained(page) and explained(chinese) == explained(page)
    title = page.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    assert chinese.read_text(encoding="utf-8").splitlines()[0].endswith(f"({title})")


@pytest.mark.parametrize("page", sorted(HELP.rglob("*.md")), ids=lambda page: page.relative_to(HELP).as_posix())
def test_help_has_no_link_into_the_repository(page: Path):
    """ComfyUI's page would look for the target at its own address."""
    assert not list(links(page.read_text(encoding="utf-8")))
