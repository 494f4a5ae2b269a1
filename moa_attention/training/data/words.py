"""Which words of a caption are subjects."""

from __future__ import annotations

import re
from collections.abc import Sequence

PERSON_WORDS = (
    "man", "woman", "boy", "girl", "person", "kid", "child", "baby", "lady", "gentleman", "guy", "toddler", "teenager",
    "actor", "actress", "bride", "groom", "player", "singer", "soldier", "dancer", "model", "student",
)  # fmt: skip
"""Nouns for one human being; plural ones bind nobody."""
MARK = "<|image|>"
"""Behind a word, says that the word is a subject (FastComposer's mark)."""


def find_words(caption: str, words: Sequence[str] = PERSON_WORDS) -> list[int]:
    """Offsets just behind every one of these words, from left to right; case does not matter."""
    pattern = r"\b(?:" + "|".join(re.escape(word) for word in words) + r")\b"
    return [match.end() for match in re.finditer(pattern, caption, re.IGNORECASE)]


def take_marks(caption: str) -> tuple[str, list[int]]:
    """The caption without its marks, and the offsets just behind the words they stood at."""
    before, *rest = re.split(r"\s*" + re.escape(MARK), caption)
    ends = []
    for part in rest:
        ends.append(len(before))
        before += part
    return before, ends
