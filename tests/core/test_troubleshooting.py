"""The troubleshooting page quotes messages as they are in the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SOURCES = ("nodes", "moa_attention", "recipes", "devtools")
GAP = "…"
"""On the page, and below, for a value that a message inserts."""


def quoted_fragments() -> list[str]:
    """The first cells, in backticks, of all tables whose first column is `the message contains`."""
    tables = re.findall(r"^\| the message contains \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [row.split("|")[1].strip().strip("`") for table in tables for row in table.splitlines()]


def texts(source: str) -> Iterator[str]:
    """The strings of a module, those of f-strings with gaps; docstrings are left out."""
    tree = ast.parse(source)
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else GAP for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


MESSAGES = [
    text
    for folder in SOURCES
    for file in (ROOT / folder).rglob("*.py")
    for text in texts(file.read_text(encoding="utf-8"))
]


def test_the_tables_are_found():
    assert len(quoted_fragments()) > 20


@pytest.mark.parametrize("fragment", quoted_fragments())
def test_a_quoted_message_is_in_the_code(fragment: str):
    assert any(fragment in message for message in MESSAGES)
