"""Rows of the prior alone beside those with subjects, for `SubjectGuidance`: the sampler's conds with and without their subjects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import comfy.conds
import torch

from ..prompts.payload_names import PayloadNames
from .subject_rows import rows_with_subjects

PAIR = "moa_pair"
"""Name in `model_conds`, added in every step: (1,1), n of a row with subjects, -n of the same prompt without, 0 of any other."""

Conds = list[list[dict] | None]


def bare_conds(conds: Conds, names: PayloadNames) -> Conds:
    """Copies of the sampler's conds that carry no subjects of an adapter."""
    return [cond if cond is None else [bare(each, names) for each in cond] for cond in conds]


def bare(cond: dict, names: PayloadNames) -> dict:
    """A copy of a cond that carries no subjects of an adapter."""
    return {**cond, "model_conds": {n: given for n, given in cond["model_conds"].items() if n not in names.payload}}


def with_prior_rows(conds: Conds, names: PayloadNames) -> tuple[Conds, dict[int, int]]:
    """The sampler's conds, and a list more for each that has subjects of an adapter, with the same prompts without them.

    Returns: also the numbers of the lists that are the additional ones' sources.
    """
    result, sources, pairs = list(conds), {}, 0
    for number, each in enumerate(conds):
        numbered, priors = [], []
        for cond in each or ():
            if has_subjects(cond["model_conds"], names):
                pairs += 1
                # A name of its own, but the same in every step: caches of other nodes identify conds by it.
                alone = {**bare(cond, names), "uuid": uuid5(NAMESPACE_OID, f"{cond.get('uuid')} without subjects")}
                priors.append(in_pair(alone, -pairs))
                cond = in_pair(cond, pairs)
            numbered.append(cond)
        if priors:
            result[number], sources[len(result)] = numbered, number
            result.append(priors)
    return result, sources


def has_subjects(given: Mapping[str, Any], names: PayloadNames) -> bool:
    """Whether the rows of a cond have subjects of an adapter with a strength above 0."""
    if names.slots not in given or names.features not in given:
        return False
    terms = given[names.terms].cond if names.terms in given else None
    return len(rows_with_subjects(given[names.slots].cond, terms)) > 0


def in_pair(cond: dict, pair: int) -> dict:
    """A copy of a cond with its number, as in `PAIR`."""
    number = comfy.conds.CONDRegular(torch.tensor([[float(pair)]]))
    return {**cond, "model_conds": {**cond["model_conds"], PAIR: number}}


def numbered_alike(conds: Conds, names: PayloadNames) -> Conds:
    """Copies of completed conds in which all or none have an entry `PAIR`; the host batches only what is alike."""
    if not any(PAIR in cond["model_conds"] for each in conds for cond in each or ()):
        return conds

    def complete(cond: dict) -> dict:
        given = cond["model_conds"]
        return in_pair(cond, 0) if names.slots in given and PAIR not in given else cond

    return [cond if cond is None else list(map(complete, cond)) for cond in conds]


def pairs_of(numbers: torch.Tensor | None) -> list[int]:
    """The numbers of a call's rows, (B,1) on the CPU; none where the call has no pairs."""
    return [] if numbers is None else [int(number) for number in numbers.flatten().tolist()]
