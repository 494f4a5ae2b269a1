"""Names of what a prompt carries of its subjects, for each of the adapters on a model."""

from __future__ import annotations

from typing import NamedTuple

from .subject_regions import REGION


class PayloadNames(NamedTuple):
    """Those of one adapter. In `model_conds` zeros are the defaults, so that conds may be padded with them; an entry that would be zero in
    all conds is left out."""

    slots: str = "moa_slots"
    """(1,M,1), 0 for an ordinary token and s for subject s."""
    features: str = "moa_subjects"
    """(1,S,F), the image feature of each subject."""
    terms: str = "moa_terms"
    """(1,S,4), the differences of its strength, start and end from 1, 0 and 1, and the number of its style."""
    barred: str = "moa_barred"
    """(1,S,REGION²), where it must have no share, in the first of several frames."""
    prompt: str = "moa_prompt"
    """Added in every step: (1,1), the same number for the same prompt; 0 where several rows may differ."""
    sources: str = "moa_sources"
    """In the cond itself: its subjects, by slot."""

    @property
    def payload(self) -> tuple[str, str, str, str]:
        """What rows carry from the start of a run."""
        return self.slots, self.features, self.terms, self.barred

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one subject. Other packs cut or repeat entries by their dimensions; they leave three as they are."""
        return {self.terms: (4,), self.barred: (REGION**2,)}


FIRST = PayloadNames()
"""Of the adapter that was applied first."""


def names_at(place: int) -> PayloadNames:
    """Of the adapter at a place among those on the model, from 0."""
    return PayloadNames(*(f"{name}_{place}" for name in FIRST)) if place else FIRST
