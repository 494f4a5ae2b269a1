"""Which token of a prompt a word is: the only file with tokens of text encoders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch

from ....moa_attention.formats.errors import is_one_line, printable
from ....moa_attention.formats.subject import TEXT_LENGTH
from ...sockets import Subject
from .subject_context import Binding

WORD_END = "</w>"
"""How CLIP's vocabulary marks the last piece of a word."""
NEIGHBOURS = 3
"""Tokens before and after a word that a report shows."""
LETTERS = re.compile(r"[^\W\d_]{3,}")
"""Words of a text that may be meant by another word."""
LIKENESS = 0.65
"""From here on one may: "women" for "woman", "men" for "man"."""


def word_of_prompt(word: str, node: str) -> str:
    """A word as a user entered it, without spaces around it.

    Args: node: the title of the node.
    Raises: ValueError when it is empty, or no subject file could hold it.
    """
    if len(word) > TEXT_LENGTH or not is_one_line(word.strip()):
        raise ValueError(
            f"'word' in '{node}' has line breaks, control characters or more than {TEXT_LENGTH} characters: '{printable(word, 40)}'. Enter "
            "one word of the prompt, such as 'man'."
        )
    if not word.strip():
        raise ValueError(
            f"'word' is empty in '{node}'. Enter the word of the prompt that becomes the subject, such as 'man'."
        )
    return word.strip()


def special_tokens(clip: Any) -> set[int]:
    """Start, end and padding."""
    return {token for chunk in position_stream(clip.tokenize("")) for token, *_ in chunk}


def word_tokens(clip: Any, word: str) -> list[Any]:
    """The tokens of a word: ids, and vectors (T,) where it is a textual inversion."""
    special = special_tokens(clip)
    return [token for chunk in position_stream(clip.tokenize(word)) for token, *_ in chunk if token not in special]


def position_stream(tokens: dict[str, list]) -> list[list[tuple]]:
    """The chunks of one text encoder: CLIP-L where there is one; CLIP-G's positions are the same."""
    return tokens[stream_name(tokens)]


def stream_name(tokens: dict[str, list]) -> str:
    """The text encoder whose positions count."""
    return "l" if "l" in tokens else next(iter(tokens))


class Prompt:
    """A tokenized text, read as words.

    Args: tokens: of `clip.tokenize`.
    """

    def __init__(self, clip: Any, tokens: dict[str, list]):
        chunks = position_stream(tokens)
        self.clip, self.chunk_length = clip, len(chunks[0])
        self.chunks = [[token for token, *_ in chunk] for chunk in chunks]
        self.special = special_tokens(clip)
        self.tokenizer = getattr(clip.tokenizer, f"clip_{stream_name(tokens)}", None)

    def find(self, wanted: Sequence[Any]) -> list[int]:
        """The places of a word: positions in the context of the last token of each occurrence (FastComposer's rule).

        The search runs over tokens, not over the text: weights like (man:1.2) and chunks of 77 move no position.
        """
        return [end for start, end in self._matches(wanted) if start == self.word_start(start)]

    def words_around(self, wanted: Sequence[Any]) -> list[str]:
        """The longer words that end with this one, such as "salaryman" with "man"."""
        inside = [end for start, end in self._matches(wanted) if start != self.word_start(start)]
        return list(dict.fromkeys(self.text(self.word_start(end), end + 1) for end in inside))

    def quote(self, position: int) -> str:
        """The word that ends at a position in square brackets, between its neighbours."""
        start, chunk = self.word_start(position), position - position % self.chunk_length
        before = self.text(self.word_start(max(chunk, start - NEIGHBOURS)), start)
        end = min(chunk + self.chunk_length, position + 1 + NEIGHBOURS)
        while end < chunk + self.chunk_length and self.word_start(end) < end:
            end += 1
        after = self.text(position + 1, end)
        return " ".join(filter(None, (before, f"[{self.text(start, position + 1)}]", after)))

    def word_start(self, position: int) -> int:
        """The first token of the word to which a token belongs."""
        chunk, place = divmod(position, self.chunk_length)
        while place > 0 and not self._ends_word(self.chunks[chunk][place - 1]):
            place -= 1
        return chunk * self.chunk_length + place

    def text(self, start: int, end: int) -> str:
        """The text of tokens of one chunk; empty for a textual inversion."""
        chunk, first = divmod(start, self.chunk_length)
        ids = [
            t for t in self.chunks[chunk][first : first + end - start] if isinstance(t, int) and t not in self.special
        ]
        return "" if self.tokenizer is None else self.tokenizer.tokenizer.decode(ids).strip()

    def _matches(self, wanted: Sequence[Any]) -> list[tuple[int, int]]:
        """First and last position of each occurrence, also inside longer words."""
        found = []
        for number, chunk in enumerate(self.chunks):
            for start in range(len(chunk) - len(wanted) + 1):
                if all(map(same_token, chunk[start : start + len(wanted)], wanted)):
                    first = number * self.chunk_length + start
                    found.append((first, first + len(wanted) - 1))
        return found

    def _ends_word(self, token: Any) -> bool:
        if self.tokenizer is None or not isinstance(token, int) or token in self.special:
            return True
        return self.tokenizer.inv_vocab[token].endswith(WORD_END)


def same_token(one: Any, other: Any) -> bool:
    """Whether two tokens are the same id or the same vector of a textual inversion."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    return isinstance(one, int) and isinstance(other, int) and one == other


def bind(clip: Any, text: str, tokens: dict[str, list], subjects: Sequence[Subject]) -> list[Binding]:
    """Find each subject's token in the prompt.

    Raises: ValueError when a word is not in the prompt (often enough), or two subjects of one adapter claim one token.
    """
    bindings: list[Binding] = []
    prompt = Prompt(clip, tokens)
    for subject in subjects:
        position = place_of(prompt, text, subject)
        if any(b.position == position and b.subject.encoder == subject.encoder for b in bindings):
            raise ValueError(
                f"Two subjects are bound to the same '{subject.word}' (occurrence {subject.occurrence}) of '{text}'. "
                "Give each its own word, or set 'occurrence' to 2 for the second."
            )
        bindings.append(Binding(subject, position))
    return bindings


def place_of(prompt: Prompt, text: str, subject: Subject) -> int:
    """The position of a subject's word.

    Raises: ValueError when the prompt has no such word, or not often enough.
    """
    wanted = word_tokens(prompt.clip, subject.word)
    if not wanted:
        raise ValueError(
            f"The tokenizer finds no token in the word '{subject.word}', and no file of such an embedding. Enter an ordinary word "
            "in 'Encode Subject (MoA)'."
        )
    places = prompt.find(wanted)
    if len(places) >= subject.occurrence:
        return places[subject.occurrence - 1]
    found = f"occurs {len(places)} time(s)" if places else "does not occur"
    longer = prompt.words_around(wanted)
    inside = f" as a word of its own, but inside {' and '.join(map(repr, longer))}," if longer else ""
    near = near_misses(text, subject.word) if not places else []
    example = f", for example to '{near[0]}'" if near else ""
    raise ValueError(
        f"Subject '{subject.word}' (occurrence {subject.occurrence}) is not in the prompt: the word {found}{inside} in "
        f"'{text}'. Add the word to the prompt, or change it in 'Encode Subject (MoA)'{example}."
    )


def near_misses(text: str, word: str) -> list[str]:
    """Words of a text that may be meant by a word it does not contain, the nearest first."""
    return get_close_matches(word.strip().lower(), set(LETTERS.findall(text.lower())), cutoff=LIKENESS)
