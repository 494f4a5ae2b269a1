"""The texts of the nodes in other languages: complete, and those of the nodes."""

from __future__ import annotations

import re

import pytest

from devtools.host import ROOT
from devtools.locales import FILE, FOLDER, PAGE, completed, english, paths, read_language, untranslated
from devtools.server import Server

LANGUAGES = sorted(path.name for path in FOLDER.iterdir())


def test_english_is_what_the_nodes_say(server: Server):
    assert read_language("en") == english(server.object_info()), "run python -m devtools.locales"


@pytest.mark.parametrize("file", [FILE, PAGE])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_complete(language: str, file: str):
    wanted, found = set(paths(read_language("en", file))), set(paths(read_language(language, file)))
    assert not wanted - found, f"missing: {sorted(wanted - found)}"
    assert not found - wanted, f"no longer in English: {sorted(found - wanted)}"


def test_every_text_of_the_page_is_used():
    scripts = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "web").glob("*.*js"))
    assert not [
        name for name in read_language("en", PAGE)["moa"] if f'"{name}"' not in scripts and f"{name}:" not in scripts
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_text_of_the_page_has_the_places_of_the_english_one(language: str):
    for name, text in read_language("en", PAGE)["moa"].items():
        assert set(re.findall(r"{\w+}", read_language(language, PAGE)["moa"][name])) == set(re.findall(r"{\w+}", text))


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_messages_find_a_node_by_its_english_title(language: str):
    """Messages name nodes by their English titles, so that a translated title contains it."""
    translated = read_language(language)
    for key, node in read_language("en").items():
        assert node["display_name"] in translated[key]["display_name"]


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_every_text_is_translated(language: str):
    for file in (FILE, PAGE):
        assert not list(untranslated(read_language("en", file), read_language(language, file)))


def test_a_translation_of_a_changed_text_is_replaced():
    before = {"node": {"description": "old", "kept": "same"}}
    wanted = {"node": {"description": "new text", "kept": "same", "added": "more text"}}
    found = {"node": {"description": "alt", "kept": "gleich", "gone": "weg"}}
    result = completed(found, wanted, before)
    assert result == {"node": {"description": "new text", "kept": "gleich", "added": "more text"}}
    assert list(untranslated(wanted, result)) == ["node.description", "node.added"]


def test_the_server_offers_every_language(server: Server):
    offered = server.get("/i18n")
    for language in LANGUAGES:
        assert offered[language]["nodeDefs"]["ApplyMoA"] == read_language(language)["ApplyMoA"]
        assert offered[language]["moa"] == read_language(language, PAGE)["moa"]
