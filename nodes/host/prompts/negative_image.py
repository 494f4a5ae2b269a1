"""What negative prompts get where the others have image prompts: the same subjects with other features, at the same places.

IP-Adapter gives the tokens of an empty picture to the negative prompt. Guidance then amplifies the difference to these, not to the prior.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import comfy.conds
import torch
from torch import Tensor

from ....moa_attention.subjects.mixing import repeat_to_common_width
from ...sockets import Subject
from .payload_names import FIRST, PayloadNames
from .styles import NumberedStyles

AS_PUBLISHED, NONE = "as published", "none"
NEGATIVE_IMAGES = (AS_PUBLISHED, NONE)
"""As users choose in Apply MoA."""
Follows = Mapping[int, Sequence[tuple[int, int]]]
"""By the number of a negative prompt, for each of its slots: the prompt and the slot whose place it has."""


class NegativeImage(NamedTuple):
    """The user's choice in Apply MoA."""

    choice: str = AS_PUBLISHED
    by_hand: Subject | None = None
    """Takes the place of the published ones."""

    def of(self, subject: Subject) -> Tensor | None:
        """What negative prompts get in place of a subject, (1,F); None: nothing."""
        if not subject.tokens:
            return None
        if self.by_hand is not None:
            return self.by_hand.features
        return subject.negative if self.choice == AS_PUBLISHED else None

    def notes(self, subjects: Sequence[Subject]) -> list[str]:
        """Lines for users on subjects whose negative image is not known."""
        unknown = [s.word for s in subjects if s.tokens and self.choice == AS_PUBLISHED and self.of(s) is None]
        return [
            f"the negative image of '{word}' is not known, so negative prompts get none. Encode the subject again with 'Encode Subject "
            "(MoA)', or set 'negative_image' in 'Apply MoA' to 'none'."
            for word in unknown
        ]


NO_NEGATIVE_IMAGE = NegativeImage(NONE)


class Source(NamedTuple):
    """A subject of a prompt that is not negative."""

    features: Tensor
    """(1,F), those for negative prompts."""
    place: tuple[int, int]
    """Its prompt and its slot, from 0."""
    payload: Mapping[str, Any]
    """Of its prompt."""
    style: int | None = None
    """The number of its style in negative prompts; None: as in its prompt."""

    def part(self, name: str, names: PayloadNames) -> Tensor:
        """Its part (1,1,…) of an entry of the payload; zeros where its prompt has none."""
        slot = self.place[1]
        if name not in self.payload:
            return torch.zeros(1, 1, *names.shapes[name])
        found = self.payload[name].cond[:, slot : slot + 1].clone()
        if name == names.terms and self.style is not None:
            found[..., 3] = self.style
        return found


def with_negative_images(
    conds: Mapping[str, list[dict]], negative: NegativeImage, styles: NumberedStyles, names: PayloadNames = FIRST
) -> tuple[dict[str, list[dict]], Follows]:
    """Copies of a run's conds whose negative prompts carry the negative images. Those with subjects of their own, of the
    same adapter, stay as they are.

    Returns: also what they follow.
    """
    numbers = count()
    numbered = {name: [(next(numbers), cond) for cond in of_name] for name, of_name in conds.items()}
    positive = [entry for name, entries in numbered.items() if not is_negative(name) for entry in entries]
    sources = list(image_sources(positive, negative, styles, names))
    if not sources:
        return dict(conds), {}
    result, follows, payload = {}, {}, payload_of(sources, names)
    for name, entries in numbered.items():
        result[name] = [cond for _, cond in entries]
        for place, (number, cond) in enumerate(entries if is_negative(name) else []):
            if names.slots not in cond["model_conds"]:
                result[name][place] = {**cond, "model_conds": {**cond["model_conds"], **payload}}
                follows[number] = [source.place for source in sources]
    return result, follows


def is_negative(name: str) -> bool:
    """Whether a guider's prompts of this name are negative ones."""
    return "negative" in name


def image_sources(
    prompts: Sequence[tuple[int, dict]], negative: NegativeImage, styles: NumberedStyles, names: PayloadNames
) -> Iterator[Source]:
    """What negative prompts get for the subjects of numbered prompts, each once: other features, and in swapped blocks the picture."""
    seen: set[int] = set()
    for number, cond in prompts:
        for slot, subject in enumerate(cond.get(names.sources, ())):
            if id(subject) in seen:
                continue
            seen.add(id(subject))
            style, features = subject.style, negative.of(subject)
            place, payload = (number, slot), cond["model_conds"]
            barred = styles.barred.get(int(payload[names.terms].cond[0, slot, 3])) if names.terms in payload else None
            if features is not None:
                still = None if style.frames is None else styles.number(replace(style, frames=None), barred=barred)
                yield Source(features[:1], place, payload, still)
            if style.has_swapped_blocks:
                swapped = styles.number(replace(style, swapped=True), barred=barred)
                yield Source(subject.features[:1], place, payload, swapped)


def payload_of(sources: Sequence[Source], names: PayloadNames) -> dict[str, Any]:
    """What a negative prompt carries, as `PayloadNames.payload`. No token is replaced: the slots only show which subjects there are."""
    slots = torch.arange(1.0, len(sources) + 1)[None, :, None]
    features = torch.cat(repeat_to_common_width([source.features for source in sources]))[None]
    conds: dict[str, Any] = {
        names.slots: comfy.conds.CONDCrossAttn(slots),
        names.features: comfy.conds.CONDRegular(features),
    }
    for name in (names.terms, names.barred):
        if any(name in source.payload for source in sources):
            conds[name] = comfy.conds.CONDRegular(torch.cat([source.part(name, names) for source in sources], dim=1))
    return conds
