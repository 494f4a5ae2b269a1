"""The prompts of a run that begins: their subjects checked, and turned into what the rows of calls carry."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ..prompts.conditioning import attach_subjects, check_regions
from ..prompts.negative_image import Follows, with_negative_images
from ..prompts.styles import NumberedStyles
from ..prompts.whole_prompt import check_whole_prompts
from .apply_settings import Applications, ApplySettings
from .attachment import KEY
from .mini import unusual_size
from .views import number_pixels


def prepare_prompts(applied: Applications, guider: Any, shape: Sequence[int]) -> list[list[str]]:
    """Complete a guider's conds: -> lines for users by adapter, which hold whatever the run gives.

    Args: shape: of the run's latents.
    Raises: ValueError when a subject was encoded with another adapter, or lacks what its router needs; as `check_second_model`.
    """
    styles = [NumberedStyles() for _ in applied.every]
    guider.conds, lost = attach_subjects(guider.conds, styles, partial(encoders_for, guider, applied))
    check_second_model(guider, applied)
    further = [*lost, *unusual_size(guider.model_patcher.model.model_config, shape)]
    negative = encoders_for(guider, applied, "negative")
    own = [begin_subjects(each, guider, its, negative) for each, its in zip(applied.every, styles, strict=True)]
    if any(each.subjects.every() for each in applied.every):
        guider.conds = number_pixels(guider.conds, shape)
    return [lines + further for lines in own]


def begin_subjects(settings: ApplySettings, guider: Any, styles: NumberedStyles, negative: Sequence[str]) -> list[str]:
    """Check an adapter's subjects in a guider's conds, and complete these with its negative images: -> lines for users.

    Args: styles: of the subjects; negative: the identities of the adapters for negative prompts, by place.
    """
    names = settings.names
    follows: Follows = {}
    found = [s for conds in guider.conds.values() for cond in conds for s in cond.get(names.sources, ())]
    if settings.router is not None and settings.router.needs_regions:
        check_regions(found)
    check_whole_prompts(found, settings.router)
    if negative[settings.place : settings.place + 1] == [settings.encoder]:
        guider.conds, follows = with_negative_images(guider.conds, settings.negative_image, styles, names)
    styles.check(settings.layers)
    settings.subjects.begin(guider.conds, follows, styles, names)
    return settings.negative_image.notes(settings.subjects.every())


def encoders_for(guider: Any, applied: Applications, name: str) -> list[str]:
    """The identities of the adapters for a guider's prompt, by place: some guiders have a second model for the negative prompt."""
    held = applied_to_second(guider) if name == "negative" else None
    return (held or applied).encoders


def applied_to_second(guider: Any) -> Applications | None:
    """What is applied to a guider's second model, if it has one."""
    second = getattr(guider, "uncond_model_patcher", None)
    return None if second is None else second.get_attachment(KEY)


def check_second_model(guider: Any, applied: Applications) -> None:
    """Raises: ValueError when subjects of negative prompts need an adapter of the second model at a place where the first has another.

    The host calls the second model with the wrappers of the first, which know the settings of their own adapters alone.
    """
    held = applied_to_second(guider)
    both = zip(applied.every, [] if held is None else held.encoders, strict=False)
    other = [each.names.sources for each, encoder in both if each.encoder != encoder]
    if len(applied.every) > 1 and any(name in cond for cond in guider.conds.get("negative", ()) for name in other):
        raise ValueError(
            "The model for negative prompts has other adapters than that for positive prompts, or in another order. Connect the same 'Apply "
            "MoA' nodes to both, in one order, or use a negative prompt without subjects."
        )
