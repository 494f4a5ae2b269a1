"""Prompts with subjects: from a text to a CONDITIONING, and from the sampler's conds to what the rows of a call carry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import comfy.conds
import torch
from torch.nn.functional import pad

from ....moa_attention.subjects.mixing import common_width, repeat_to_common_width
from ...sockets import Subject
from .payload_names import FIRST, PayloadNames, names_at
from .prompt_words import Prompt, bind
from .styles import NumberedStyles
from .subject_context import (
    ENCODED,
    Binding,
    Encoded,
    SubjectContext,
    distinct,
    subjects_of,
    with_subjects,
    without_subjects,
)
from .subject_regions import barred, carried_regions
from .tiles import check_no_tiles


def encode_prompt(clip: Any, text: str, subjects: Sequence[Subject]) -> tuple[list, list[Binding]]:
    """Encode a prompt as the host does and attach the subjects to it: -> (CONDITIONING, bindings).

    Raises: ValueError as `bind`, and when a subject is in tiles.
    """
    check_no_tiles(subjects)
    tokens = clip.tokenize(text)
    bindings = bind(clip, text, tokens, subjects)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    if not bindings:
        return conditioning, bindings
    return [with_subjects(context, extra, bindings) for context, extra in conditioning], bindings


def attach_subjects(
    conds: dict[str, list[dict]], styles: Sequence[NumberedStyles], encoders: Callable[[str], Sequence[str]]
) -> tuple[dict[str, list[dict]], list[str]]:
    """Copies of the sampler's conds, before a run, in which the subjects of a prompt are payload of its rows.

    Args:
        styles: of the run, for each adapter on the model; receive those of the subjects.
        encoders: the identities of the adapters for prompts of a name.
    Returns: also what users must know about subjects that other nodes lost or changed.
    Raises: ValueError as `check_encoders`.
    """
    notes: dict[str, None] = {}

    def attach(cond: dict, of_adapters: Sequence[str]) -> dict:
        bindings, found = subjects_of(cond)
        notes.update(dict.fromkeys(found))
        encoded = cond.get(ENCODED)
        regions = carried_regions(cond, distinct(encoded.context.bindings)) if isinstance(encoded, Encoded) else {}
        cond = {name: entry for name, entry in cond.items() if name != ENCODED}
        if isinstance(cond.get("cross_attn"), SubjectContext):
            cond["cross_attn"] = without_subjects(cond["cross_attn"])
        check_encoders(distinct(bindings), of_adapters)
        for place, encoder in enumerate(of_adapters):
            own, names = [b for b in bindings if b.subject.encoder == encoder], names_at(place)
            if own:
                batch, length, _ = cond["cross_attn"].shape
                carried = payload(own, length, regions, batch, styles[place], names)
                cond["model_conds"] = {**cond["model_conds"], **carried}
                cond[names.sources] = distinct(own)
        return cond

    attached = {name: [attach(cond, encoders(name)[: len(styles)]) for cond in each] for name, each in conds.items()}
    return attached, list(notes)


def payload(
    bindings: Sequence[Binding],
    length: int,
    regions: Mapping[int, torch.Tensor] | None = None,
    batch: int = 1,
    styles: NumberedStyles | None = None,
    names: PayloadNames = FIRST,
) -> dict[str, Any]:
    """What the rows of a prompt of `length` tokens carry in `model_conds`, without the entries that have no content.

    A subject with several tokens, as averages and concatenations make them, is one subject with the sum of their weights.

    Args:
        regions: as of `carried_regions`; other subjects have those of their settings.
        batch: of the prompts, where these are several in one embedding.
        styles: of the run; None leaves styles out.
        names: of the subjects' adapter.
    """
    subjects = distinct(bindings)
    numbers = {id(s): number for number, s in enumerate(subjects, start=1)}
    slots = torch.zeros(batch if any(each.rows for each in bindings) else 1, length, 1)
    for each in bindings:
        slots[list(each.rows) or slice(None), each.position] = numbers[id(each.subject)]
    features = torch.cat(repeat_to_common_width([s.features[:1] for s in subjects]))[None]  # (1,S,F)
    conds: dict[str, Any] = {
        names.slots: comfy.conds.CONDCrossAttn(slots),
        names.features: comfy.conds.CONDRegular(features),
    }
    given = regions or {}
    areas = [given[id(s)] if id(s) in given else barred(s.settings.region) for s in subjects]
    terms = terms_of(bindings, subjects, areas, styles)
    if terms.any():
        conds[names.terms] = comfy.conds.CONDRegular(terms)
    if any(s.settings.region is not None for s in subjects):
        conds[names.barred] = comfy.conds.CONDRegular(torch.cat([area[:1] for area in areas]).flatten(1)[None])
    return conds


def terms_of(
    bindings: Sequence[Binding],
    subjects: Sequence[Subject],
    areas: Sequence[torch.Tensor],
    styles: NumberedStyles | None,
) -> torch.Tensor:
    """What `PayloadNames.terms` carries of the subjects of a prompt, (1,S,4).

    Args: areas: where each subject must have no share, (P,h,w) for P frames; styles: as of `payload`.
    """
    weights: dict[int, float] = {}
    for each in bindings:
        weights[id(each.subject)] = weights.get(id(each.subject), 0.0) + each.weight
    rows = []
    for subject, area in zip(subjects, areas, strict=True):
        settings, frames = subject.settings, area.flatten(1) if len(area) > 1 else None
        kind = 0 if styles is None else styles.number(subject.style, settings.strength, frames)
        strength = settings.strength * round(min(1.0, weights[id(subject)]), 6)
        rows.append((strength - 1, settings.start, settings.end - 1, float(kind)))
    return torch.tensor([rows])


def strengths_at(terms: torch.Tensor, sigma: torch.Tensor, level: Callable[[float], float]) -> torch.Tensor | None:
    """The strength of each subject at a noise level; None where all have strength 1.

    Args: terms (R,S,4) on the CPU, as in `PayloadNames.terms`; sigma (1,); level: the noise level at a part of the sampling, 0..1.
    Returns: (R,S) on sigma's device.
    """
    if not terms.any():
        return None
    strength, start, end = (terms[..., :3] + torch.tensor([1.0, 0.0, 1.0])).unbind(-1)
    first, last = (
        torch.tensor([[level(p) for p in row] for row in part.tolist()]).to(sigma.device, non_blocking=True)
        for part in (start, end)
    )
    return strength.to(sigma.device, non_blocking=True) * ((sigma <= first) & (sigma > last))


def check_encoders(subjects: Iterable[Subject], encoders: Sequence[str]) -> None:
    """Raises: ValueError when a subject was encoded by none of the applied adapters."""
    for other in {subject.encoder for subject in subjects}.difference(encoders):
        applied, several = " and ".join(map(repr, encoders)), "s" if len(encoders) > 1 else ""
        raise ValueError(
            f"A subject was encoded with an adapter whose encoder and fusion are '{other}'; those of the applied adapter{several} are "
            f"{applied}. Connect 'Encode Subject (MoA)' and 'Apply MoA' to the same 'Load MoA Adapter', or encode a saved "
            "subject again."
        )


def check_regions(subjects: Iterable[Subject]) -> None:
    """Raises: ValueError when a subject has no region, which the router needs."""
    if any(subject.settings.region is None for subject in subjects):
        raise ValueError(
            "The router of 'Apply MoA' is 'mask', but a subject of the prompt has no region. Give each subject a region with "
            "'Subject Settings (MoA)', or choose another router."
        )


def complete_conditions(
    conds: list[list[dict] | None], number: Callable[[torch.Tensor, torch.Tensor], int], names: PayloadNames = FIRST
) -> list[list[dict] | None]:
    """Copies of the sampler's conds in which all carry subjects of an adapter in one shape; the host batches only what is alike.

    Conds without subjects get zero slots; slots grow with a context that was concatenated to.

    Args: number: of a prompt by its context and features, see `PromptCache.number`; names: of the adapter.
    """
    given = [c["model_conds"] for cond in conds for c in cond or () if names.features in c["model_conds"]]
    if not given:
        return conds
    features = [each[names.features].cond for each in given]
    shapes = {name: shape for name, shape in names.shapes.items() if any(name in each for each in given)}
    count, width = max(f.shape[1] for f in features), common_width(f.shape[2] for f in features)

    def complete(cond: dict) -> dict:
        given = cond["model_conds"]
        if "c_crossattn" not in given:
            return cond
        length = given["c_crossattn"].cond.shape[1]
        slots = given[names.slots].cond if names.slots in given else torch.zeros(1, 0, 1)
        conds: dict[str, Any] = {names.slots: comfy.conds.CONDCrossAttn(pad(slots, (0, 0, 0, length - slots.shape[1])))}
        for name, shape in {names.features: (width,), **shapes}.items():
            had = given[name].cond if name in given else torch.zeros(1, 0, *shape)
            if name == names.features:
                had, _ = repeat_to_common_width([had, torch.zeros(1, 0, width)])
            missing = had.new_zeros(len(had), count - had.shape[1], *shape)
            conds[name] = comfy.conds.CONDRegular(torch.cat([had, missing], dim=1))
        known = number(given["c_crossattn"].cond, given[names.features].cond) if names.features in given else 0
        conds[names.prompt] = comfy.conds.CONDRegular(torch.tensor([[float(known)]]))
        return {**cond, "model_conds": {**given, **conds}}

    return [cond if cond is None else [complete(c) for c in cond] for cond in conds]


def report(clip: Any, text: str, bindings: Sequence[Binding], absent: Sequence[Subject] = ()) -> str:
    """Each subject's word among its neighbours and the subjects that are left out, shown to users."""
    prompt = Prompt(clip, clip.tokenize(text))
    lines = [
        f"subject {i}: '{b.subject.word}' → token {b.position}: {prompt.quote(b.position)}"
        for i, b in enumerate(bindings, start=1)
    ]
    left_out = [f"left out: '{s.word}', which has no picture" for s in absent]
    return "\n".join([f"'{text}'", *(lines or ["no subjects"]), *left_out])
