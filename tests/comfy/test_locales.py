"""The texts of the nodes in other languages: complete, and those of the nodes."""

from __future__ import annotations

import pytest

from devtools.locales import FOLDER, completed, english, paths, read_language, untranslated
from devtools.server import Server

LANGUAGES = sorted(path.name for path in FOLDER.iterdir())


def test_english_is_what_the_nodes_say(server: Server):
    assert read_language("en") == english(server.object_info()), "run python -m devtools.locales"


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_complete(language: str):
    wanted, found = set(paths(read_language("en"))), set(paths(read_language(language)))
    assert not wanted - found, f"missing: {sorted(wanted - found)}"
    assert not found - wanted, f"no longer in the nodes: {sorted(found - wanted)}"


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_messages_find_a_node_by_its_english_title(language: str):
    """Messages name nodes by their English titles, so that a translated title contains it."""
    translated = read_language(language)
    for key, node in read_language("en").items():
        assert node["display_name"] in translated[key]["display_name"]


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_every_text_is_translated(language: str):
    assert not list(untranslated(read_language("en"), read_language(language)))


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
