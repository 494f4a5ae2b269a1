"""The rows of a U-Net call that have subjects, and what they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from ....moa_attention.routers.base import present
from ....moa_attention.run.view import View
from ..prompts.conditioning import strengths_at
from ..prompts.payload_names import PayloadNames
from ..prompts.styles import frames_shown
from .apply_settings import ApplySettings
from .views import PIXELS, RUN, views_of_call


class Payload(NamedTuple):
    """What the rows of a call carry for an adapter, all on the CPU: see `PayloadNames` and `views.PIXELS`."""

    slots: Tensor | None
    features: Tensor | None
    terms: Tensor | None
    barred: Tensor | None
    prompts: Tensor | None
    pixels: Tensor | None
    run: Tensor | None

    def of(self, rows: Tensor) -> Payload:
        """That of some rows, (R,) int64."""
        return Payload(*(None if part is None else part[rows] for part in self))


def take_payloads(conds: dict[str, Any], every: Sequence[PayloadNames]) -> list[Payload]:
    """The payload for each adapter, removed from a call's other inputs."""
    pixels, run = conds.pop(PIXELS, None), conds.pop(RUN, None)
    own = [(*names.payload, names.prompt) for names in every]
    return [Payload._make((*(conds.pop(name, None) for name in names), pixels, run)) for names in own]


class SubjectRows(NamedTuple):
    """R rows of a call of B rows in which a subject has a strength."""

    index: Tensor
    """(R,) int64, of the rows in the call."""
    payload: Payload
    """Theirs, with the regions of each row's frame."""
    slots: Tensor
    """(B,M,1) of all rows."""
    features: Tensor
    """(B,S,F) of all rows, with those of each row's frame."""
    strengths: Tensor | None
    """(R,S) at the call's noise level; None where all are 1."""
    views: Sequence[View | None]
    """What each row shows, where that is known."""
    prompts: Sequence[int]
    """The number of each row's prompt."""
    frames: Sequence[int]
    """Of each row."""
    by_frame: bool
    """Whether a subject has other features in other frames."""


def read_subject_rows(
    settings: ApplySettings,
    sampling: Any,
    payload: Payload,
    t: Tensor,
    size: tuple[int, int],
    options: Mapping[str, Any],
) -> SubjectRows | None:
    """The rows of a call with a subject; None where no row has one.

    Args: sampling: the model's schedule; t (B,) noise level; size: (h, w) of the latents; options: the host's transformer_options.
    """
    slots, features, styles = payload.slots, payload.features, settings.subjects.styles
    if slots is None or features is None:
        return None
    index = rows_with_subjects(slots, payload.terms)
    if not len(index):
        return None
    mine = payload.of(index)
    level = partial(settings.schedule.noise_level, sampling)
    strengths = None if mine.terms is None else strengths_at(mine.terms, t[:1], level)
    views, prompts = views_of_call(mine.pixels, mine.run, index, size, options)
    frames, by_frame = frames_shown(views), styles.by_frame(mine.terms)
    if by_frame:
        features = features.index_copy(0, index, styles.features(features[index], mine.terms, frames))
    mine = mine._replace(barred=styles.barred_at(mine.barred, mine.terms, frames))
    return SubjectRows(index, mine, slots, features, strengths, views, prompts, frames, by_frame)


def rows_with_subjects(slots: Tensor, terms: Tensor | None) -> Tensor:
    """Indices (R,) of the rows with a subject of a strength above 0; on the CPU, so that no device is waited for.

    Args: slots (B,M,1) and terms (B,S,4), as in `PayloadNames`.
    """
    slots = slots.squeeze(-1)
    if terms is None:
        return slots.any(dim=1).nonzero().squeeze(-1)
    return (present(slots, terms.shape[1]) & (terms[..., 0] != -1)).any(dim=1).nonzero().squeeze(-1)
