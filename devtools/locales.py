"""Brings `locales/*/nodeDefs.json` up to date: `.venv/bin/python -m devtools.locales` prints what remains to be translated.

`locales/en` follows the nodes. The other languages keep their translations, except where the English text has changed: there, and where a text is
missing, they get the English one. What the nodes no longer have is removed.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import host
from .host import ROOT
from .server import Server

FOLDER = ROOT / "locales"
FILE = "nodeDefs.json"
PAGE = "main.json"
"""The texts of `web/`, which are written by hand in every language."""
Texts = dict[str, Any]
"""Texts by name, nested as ComfyUI's page reads them: node, `inputs` or `outputs`, input, `name` or `tooltip`."""


def english(object_info: dict[str, Any]) -> Texts:
    """The texts of our nodes, from a server's answer."""
    ours = {key: node for key, node in object_info.items() if node["category"] == "MoA"}
    return {key: texts_of_node(node) for key, node in sorted(ours.items())}


def texts_of_node(node: dict[str, Any]) -> Texts:
    """Its title, description, inputs and outputs."""
    inputs = {
        name: texts(name, next(iter(entry[1:]), {}).get("tooltip"))
        for kind in ("required", "optional")
        for name, entry in node["input"].get(kind, {}).items()
    }
    tooltips = node.get("output_tooltips") or []
    outputs = {
        str(i): texts(name, tooltip)
        for i, (name, tooltip) in enumerate(zip(node["output_name"], tooltips, strict=True))
    }
    return {
        "display_name": node["display_name"],
        "description": node["description"],
        "inputs": inputs,
        "outputs": outputs,
    }


def texts(name: str, tooltip: str | None) -> Texts:
    """Of an input or output."""
    return {"name": name, **({"tooltip": tooltip} if tooltip else {})}


def completed(found: Texts, wanted: Texts, before: Texts) -> Texts:
    """`wanted`, with the translations that are found, where `before`, the English texts that they translate, is what is wanted."""

    def text_of(key: str, text: Any) -> Any:
        if isinstance(text, dict):
            return completed(found.get(key, {}), text, before.get(key, {}))
        return found.get(key, text) if before.get(key) == text else text

    return {key: text_of(key, text) for key, text in wanted.items()}


def untranslated(source: Texts, found: Texts, start: str = "") -> Iterator[str]:
    """The names of the English texts in `found`: of sentences, and of inputs and outputs that are still called as in the code."""
    for key, text in source.items():
        if isinstance(text, dict):
            yield from untranslated(text, found[key], f"{start}{key}.")
        elif found[key] == text and (" " in text or "_" in text):
            yield start + key


def paths(tree: Texts, start: str = "") -> Iterator[str]:
    """The names of all texts, such as `ApplyMoA.inputs.strength.tooltip`."""
    for key, text in tree.items():
        yield from paths(text, f"{start}{key}.") if isinstance(text, dict) else [start + key]


def read_language(language: str, name: str = FILE) -> Texts:
    """A language's texts in one of its files."""
    file = FOLDER / language / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def write_language(language: str, content: Texts) -> None:
    """Replace a language's texts."""
    file = FOLDER / language / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(host.find(), Path(sys.executable), Path(folder), packs=[ROOT], cpu=True) as server,
    ):
        wanted = english(server.object_info())
    before = read_language("en")
    write_language("en", wanted)
    for language in sorted(path.name for path in FOLDER.iterdir() if path.name != "en"):
        write_language(language, completed(read_language(language), wanted, before))
        for name in untranslated(wanted, read_language(language)):
            print(f"{language}: {name}")


if __name__ == "__main__":
    main()
