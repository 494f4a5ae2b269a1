"""What users must know of a sampling run that ended: when its subjects were active, or why they were not."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from ....moa_attention.run.strength import PRIOR_ONLY
from ....moa_attention.run.trace import Trace
from ...sockets import Subject
from .apply_settings import ApplySettings

log = logging.getLogger(__name__)


class RunNote(NamedTuple):
    """A note, and its level in the console: 0 where it is not worth a line there."""

    text: str
    level: int


def note_before(settings: ApplySettings, further: Sequence[str], alone: bool) -> RunNote | None:
    """The note on a run in which, by its settings, no subject of an adapter can take part.

    Args:
        further: lines on the run that hold in any case, such as those of `attach_subjects`.
        alone: whether the model has no other adapter.
    """
    reason = early_reason(settings, settings.subjects.every())
    return without_part(settings, reason, further, alone) if reason else None


def note_after(settings: ApplySettings, further: Sequence[str], alone: bool) -> RunNote:
    """The note on a run that ended.

    Args: as of `note_before`.
    """
    reason = late_reason(settings, settings.subjects.every())
    if reason:
        return without_part(settings, reason, further, alone)
    share = settings.budget.measured_share()
    lines = [active_line(settings), *partly_idle(settings.subjects.every()), *further]
    if share is not None:
        lines.append(f"At the end the personalised branch was computed for {100 * share:.0f} % of the pixels.")
    level = logging.WARNING if further else logging.INFO
    return RunNote("\n".join(lines), level if further or share is not None else 0)


def give_note(settings: ApplySettings, note: RunNote | None) -> None:
    """Put a note on a run into the console and where the settings want it."""
    if note is not None:
        if note.level:
            log.log(note.level, "MoA: %s", note.text)
        settings.notify(note.text)


def without_part(settings: ApplySettings, reason: str, further: Sequence[str], alone: bool) -> RunNote:
    """The note on a run without the personalised branch."""
    subject, result = ("subject", "the base model's") if alone else ("subject of this adapter", "that of the others")
    lora = " with the LoRA of the FaceID file, which acts on the whole model" if settings.weights else ""
    text = f"No {subject} takes part: {reason}. The result is {result}{lora}."
    return RunNote("\n".join([text, *further]), logging.WARNING)


def active_line(settings: ApplySettings) -> str:
    """Which subjects were active, and how long."""
    names, schedule = ", ".join(settings.subjects.names.values()), settings.schedule
    return f"{names}: active in {len(schedule.active)} of {schedule.evaluation} evaluations."


def partly_idle(subjects: Sequence[Subject]) -> list[str]:
    """Lines on the subjects that took no part beside others."""
    reasons = [(s.word, own_reason(s)) for s in subjects]
    return [f"'{word}' took no part: {reason}." for word, reason in reasons if reason]


def early_reason(settings: ApplySettings, subjects: Sequence[Subject]) -> str:
    """Why no subject can take part in a run; empty where one can."""
    if not subjects:
        return (
            "no prompt of the run has one. Connect a subject to 'MoA Text Encode (Prompt)', and the conditioning of that node to "
            "the sampler"
        )
    if settings.prior_bias >= PRIOR_ONLY:
        return "'strength' in 'Apply MoA' is 0"
    if all(settings.layer_strength.get(name) == 0 for name in settings.paths):
        return "'Layer Strength (MoA)' is 0 for every layer"
    if settings.window is not None and settings.window[0] >= settings.window[1]:
        return window_reason("'Apply MoA'", *settings.window)
    own = [own_reason(s) for s in subjects]
    return "; ".join(f"'{s.word}': {reason}" for s, reason in zip(subjects, own, strict=True)) if all(own) else ""


def late_reason(settings: ApplySettings, subjects: Sequence[Subject]) -> str:
    """Why no subject took part in a run in which it could; empty where one did."""
    if not settings.schedule.active:
        if settings.window is None:
            return "none of its steps used a prompt with a subject"
        start, end = settings.window
        return f"none of its steps lies between 'start_percent' {start:g} and 'end_percent' {end:g} of 'Apply MoA'"
    if any(isinstance(each, Trace) and not each.largest_share() for each in settings.observers):
        return (
            "each subject had a share of 0 at every pixel: see its strength, window and region in 'Subject Settings (MoA)', and "
            "'router' in 'Apply MoA'"
        )
    return ""


def own_reason(subject: Subject) -> str:
    """Why a subject cannot take part by its own settings; empty where it can."""
    own, node = subject.settings, "'Subject Settings (MoA)'"
    if own.strength == 0:
        return f"its strength is 0 in {node}"
    if own.start >= own.end:
        return window_reason(node, own.start, own.end)
    if own.region is not None and not own.region.any():
        return f"its region in {node} is empty"
    return ""


def window_reason(node: str, start: float, end: float) -> str:
    """That a window is empty."""
    return f"'start_percent' {start:g} in {node} is not below 'end_percent' {end:g}"
