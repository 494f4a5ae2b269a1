"""Subjects of a whole prompt instead of one of its words: for image prompts that act everywhere, or in a region."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

from ....moa_attention.routers.base import TrainingFreeRouter
from ...sockets import Subject
from .subject_context import ENCODED, Binding, subjects_of, with_subjects
from .tiles import in_tiles


def add_subjects(conditioning: Sequence[Any], subjects: Sequence[Subject]) -> list:
    """A CONDITIONING with subjects, each tile as one, whose earlier ones remain. No token is changed: the subjects only need a place to be listed at.

    Raises: ValueError when a subject has no image tokens.
    """
    without_tokens = [subject.word for subject in subjects if not subject.tokens]
    if without_tokens:
        raise ValueError(
            f"'Add Subjects (MoA)' needs subjects of an IP-Adapter. The adapter of '{without_tokens[0]}' replaces a word of the prompt: "
            "connect the subject to 'MoA Text Encode (Prompt)' instead."
        )
    whole = [replace(part, whole_prompt=True) for subject in subjects for part in in_tiles(subject)]
    return [with_whole(context, extra, whole) for context, extra in conditioning] if whole else list(conditioning)


def with_whole(context: Any, extra: dict[str, Any], subjects: Sequence[Subject]) -> list:
    """One entry of a CONDITIONING with more subjects, each at the first free token.

    Raises: ValueError when the prompt has fewer tokens.
    """
    earlier, _ = subjects_of({"cross_attn": context, ENCODED: extra.get(ENCODED)})
    taken = {binding.position for binding in earlier}
    places = list(islice((place for place in count() if place not in taken), len(subjects)))
    if places[-1] >= context.shape[1]:
        raise ValueError(
            f"'Add Subjects (MoA)' received {len(subjects)} subjects for a prompt of {context.shape[1]} tokens. Connect fewer."
        )
    added = [Binding(subject, place) for subject, place in zip(subjects, places, strict=True)]
    return with_subjects(context, extra, [*earlier, *added])


def check_whole_prompts(subjects: Iterable[Subject], router: TrainingFreeRouter | None) -> None:
    """Raises: ValueError when a subject has no word, which the router needs."""
    if router is not None and not router.needs_words:
        return
    if any(subject.whole_prompt for subject in subjects):
        raise ValueError(
            "A subject of 'Add Subjects (MoA)' has no word in the prompt, and the router of 'Apply MoA' places subjects by their words. "
            "Set 'router' to 'constant' or 'mask', or bind the subject to a word with 'MoA Text Encode (Prompt)'."
        )
