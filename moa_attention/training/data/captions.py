"""Caption files, and which words of a caption are subjects."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from pathlib import Path

from .pictures import BadPicture, Caption

PERSON_WORDS = (
    "man", "woman", "boy", "girl", "person", "kid", "child", "baby", "lady", "gentleman", "guy", "toddler", "teenager",
    "actor", "actress", "bride", "groom", "player", "singer", "soldier", "dancer", "model", "student",
)  # fmt: skip
"""Nouns for one human being; plural nouns are no subjects."""
MARK = "<|image|>"
"""Stands behind a word that is a subject (FastComposer's mark)."""
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
"""With their encodings; UTF-32's begins with UTF-16's."""
LONGEST = 2**16
"""Bytes of a caption file."""


def read_text(path: Path) -> str:
    """A text file in UTF-8, or in what its byte order mark states.

    Raises: BadPicture.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise BadPicture(f"unreadable caption: {path.name} ({error.strerror})") from error
    if len(data) > LONGEST:
        raise BadPicture(f"unreadable caption: {path.name} is longer than {LONGEST // 1024} KiB")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadPicture(
            f"unreadable caption: {path.name} is not {encoding.upper()} at byte {error.start}; save it as UTF-8"
        ) from error
    if "\0" in text:
        raise BadPicture(f"unreadable caption: {path.name} contains zero bytes; save it as UTF-8")
    return text


def parse_caption(text: str, words: Sequence[str]) -> Caption:
    """A caption without its marks; its subjects are the marked words, else those of `words`."""
    plain, ends = take_marks(text)
    return Caption(plain, tuple(ends or find_words(plain, words)))


def find_words(caption: str, words: Sequence[str] = PERSON_WORDS) -> list[int]:
    """Offsets just behind every one of these words, from left to right; case does not matter.

    In tags, `1girl` and `old_man` hold such a word; `2girls` does not.
    """
    pattern = r"(?<![^\W_])(?:1_?)?(?:" + "|".join(re.escape(word) for word in words) + r")(?![^\W_])"
    return [match.end() for match in re.finditer(pattern, caption, re.IGNORECASE)]


def take_marks(caption: str) -> tuple[str, list[int]]:
    """The caption without its marks, and the offsets just behind the marked words."""
    before, *rest = re.split(r"\s*" + re.escape(MARK), caption)
    ends = []
    for part in rest:
        ends.append(len(before))
        before += part
    return before, ends


def long_caption(parts: int) -> str:
    """The warning for a caption that the text encoder takes in several parts."""
    return f"long caption: more than 75 tokens, encoded in {parts} parts as in sampling"
