"""The texts of the nodes in other languages: complete, and those of the nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devtools.locales import FOLDER, Texts, english, paths, read_language
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
def test_most_descriptions_and_tooltips_are_translated(language: str):
    """Not all: a change of a node may add a text in English first."""
    source, translated = dict(sentences(read_language("en"))), dict(sentences(read_language(language)))
    same = [name for name, text in source.items() if translated.get(name) == text]
    assert len(same) < 0.25 * len(source), f"still English: {same}"


def sentences(tree: Texts, start: str = "") -> Iterator[tuple[str, str]]:
    """Texts of more than 30 characters by their names."""
    for key, text in tree.items():
        if isinstance(text, dict):
            yield from sentences(text, f"{start}{key}.")
        elif len(text) > 30:
            yield start + key, text


def test_the_server_offers_every_language(server: Server):
    offered = server.get("/i18n")
    for language in LANGUAGES:
        assert offered[language]["nodeDefs"]["ApplyMoA"] == read_language(language)["ApplyMoA"]
