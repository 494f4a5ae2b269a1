"""Prompts with subjects: the only file that touches CLIP tokens and conditioning dicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import comfy.conds
import torch
from torch.nn.functional import pad

from ..moa_attention.combine import alike
from ..moa_attention.losses import resize
from .sockets import Subject

SLOTS, FEATURES, TERMS, BARRED = "moa_slots", "moa_subjects", "moa_terms", "moa_barred"
"""Names in `model_conds`: (1,M,1), 0 for an ordinary token and s for subject s; then of each subject (1,S,F) the image
feature, (1,S,3) how its strength, start and end differ from 1, 0 and 1, and (1,S,h,w) where it must not speak. Zeros mean
nothing special, so that conds may be padded with them."""
PROMPT = "moa_prompt"
"""Added in every step: (1,1), the same number for the same prompt; 0 where several rows may differ."""
PAYLOAD = (SLOTS, FEATURES, TERMS, BARRED, PROMPT)
REGION = 64
"""Side of the square on which regions are kept."""
ENCODER = "moa_encoder"
"""Name in the conditioning's dict: which image features these are."""


class Binding(NamedTuple):
    """A subject and the token of the prompt that it takes."""

    subject: Subject
    position: int
    """Index in the context: chunk · tokens per chunk + place in the chunk."""


def special_tokens(clip: Any) -> set[int]:
    """Start, end and padding."""
    return {token for chunk in position_stream(clip.tokenize("")) for token, *_ in chunk}


def word_tokens(clip: Any, word: str) -> list[int]:
    """The ids a word becomes."""
    special = special_tokens(clip)
    return [token for chunk in position_stream(clip.tokenize(word)) for token, *_ in chunk if token not in special]


def position_stream(tokens: dict[str, list]) -> list[list[tuple]]:
    """The chunks of one text encoder: CLIP-L where there is one; CLIP-G's positions are the same."""
    return tokens["l"] if "l" in tokens else next(iter(tokens.values()))


def find_word(chunks: list[list[tuple]], wanted: list[int]) -> list[int]:
    """Where a word occurs: positions in the context of the last token of each occurrence (FastComposer's rule).

    The search runs over ids, not over the text: weights like (man:1.2) and chunks of 77 move no position.
    """
    length = len(chunks[0])
    found = []
    for number, chunk in enumerate(chunks):
        ids = [token if isinstance(token, int) else None for token, *_ in chunk]
        last = len(ids) - len(wanted)
        found += [number * length + i + len(wanted) - 1 for i in range(last + 1) if ids[i : i + len(wanted)] == wanted]
    return found


def bind(clip: Any, text: str, tokens: dict[str, list], subjects: Sequence[Subject]) -> list[Binding]:
    """Find each subject's token in the prompt.

    Raises: ValueError when a word is not in the prompt (often enough), or two subjects claim one token.
    """
    bindings: list[Binding] = []
    for subject in subjects:
        wanted = word_tokens(clip, subject.word)
        if not wanted:
            raise ValueError(f"'{subject.word}' is no word to the tokenizer. Write a plain word into SubjectEncode.")
        places = find_word(position_stream(tokens), wanted)
        if len(places) < subject.occurrence:
            seen = f"it occurs {len(places)} time(s)" if places else "it does not occur"
            raise ValueError(
                f"Subject '{subject.word}' (occurrence {subject.occurrence}) has no place in the prompt: {seen} in "
                f"'{text}'. Write the word into the prompt, or change the word in SubjectEncode."
            )
        position = places[subject.occurrence - 1]
        if any(b.position == position for b in bindings):
            raise ValueError(
                f"Two subjects are bound to the same '{subject.word}' (occurrence {subject.occurrence}) of '{text}'. "
                "Give each its own word, or set 'occurrence' to 2 for the second."
            )
        bindings.append(Binding(subject, position))
    return bindings


def encode_prompt(clip: Any, text: str, subjects: Sequence[Subject]) -> tuple[list, list[Binding]]:
    """Encode a prompt as the host does and attach the subjects to it: -> (CONDITIONING, bindings).

    Raises: ValueError as `bind`, and when the subjects were encoded for different adapters.
    """
    encoders = {s.encoder for s in subjects}
    if len(encoders) > 1:
        raise ValueError(
            f"The subjects were encoded for different adapters: {sorted(encoders)}. Use one LoadMoAAdapter."
        )
    tokens = clip.tokenize(text)
    bindings = bind(clip, text, tokens, subjects)
    conditioning = clip.encode_from_tokens_scheduled(tokens)
    if not bindings:
        return conditioning, bindings
    return [[context, {**extra, **payload(context, extra, bindings)}] for context, extra in conditioning], bindings


def payload(context: torch.Tensor, extra: dict, bindings: Sequence[Binding]) -> dict[str, Any]:
    """What a conditioning carries for us: kept by area, mask, range, combine and concat nodes, ignored without ApplyMoA."""
    slots = torch.zeros(1, context.shape[1], 1)
    for number, binding in enumerate(bindings, start=1):
        slots[0, binding.position] = number
    terms = [b.subject.terms for b in bindings]
    features = torch.cat(alike([b.subject.features for b in bindings]))[None]  # (1,S,F)
    conds = {
        SLOTS: comfy.conds.CONDCrossAttn(slots),
        FEATURES: comfy.conds.CONDRegular(features),
        TERMS: comfy.conds.CONDRegular(torch.tensor([[(t.strength - 1, t.start, t.end - 1) for t in terms]])),
        BARRED: comfy.conds.CONDRegular(torch.stack([barred(t.region) for t in terms])[None]),
    }
    return {"model_conds": {**extra.get("model_conds", {}), **conds}, ENCODER: bindings[0].subject.encoder}


def barred(region: torch.Tensor | None) -> torch.Tensor:
    """Where a subject must not speak: (h,w) region -> (REGION,REGION)."""
    if region is None:
        return torch.zeros(REGION, REGION)
    return 1 - resize(region[None, None].float(), (REGION, REGION))[0, 0].clamp(0, 1)


def weights_now(terms: torch.Tensor, sigma: torch.Tensor, sampling: Any) -> torch.Tensor | None:
    """How loudly each subject may speak at a noise level; None when all may as they like.

    Args: terms (R,S,3) on the CPU, as in `TERMS`; sigma (1,); the model's sampling. Returns: (R,S) on sigma's device.
    """
    if not terms.any():
        return None
    strength, start, end = (terms + torch.tensor([1.0, 0.0, 1.0])).unbind(-1)
    first, last = (
        torch.tensor([[float(sampling.percent_to_sigma(p)) for p in row] for row in part.tolist()]).to(sigma.device)
        for part in (start, end)
    )
    return strength.to(sigma.device) * ((sigma <= first) & (sigma > last))


def check_encoders(conds: Iterable[dict], encoder: str) -> bool:
    """Whether any of these conds has a subject.

    Raises: ValueError when a subject is made of other image features than the applied adapter understands.
    """
    found = {cond[ENCODER] for cond in conds if ENCODER in cond}
    for other in found - {encoder}:
        raise ValueError(
            f"A subject was encoded for image features '{other}', the applied adapter understands '{encoder}'. "
            "Connect SubjectEncode and ApplyMoA to the same LoadMoAAdapter."
        )
    return bool(found)


def check_regions(conds: Iterable[dict]) -> None:
    """Raises: ValueError when a subject has no region and the router goes by regions alone."""
    for cond in conds:
        if ENCODER in cond and not bool(cond["model_conds"][BARRED].cond.flatten(2).any(dim=-1).all()):
            raise ValueError(
                "ApplyMoA's router is 'mask', but a subject of the prompt has no region. Give each one with MoASubjectSettings, "
                "or choose another router."
            )


def complete_conditions(
    conds: list[list[dict] | None], number: Callable[[torch.Tensor, torch.Tensor], int]
) -> list[list[dict] | None]:
    """Copies of the sampler's conds in which all carry subjects of one shape; the host batches only what is alike.

    Conds without subjects get zero slots; slots grow with a context that was concatenated to.

    Args: number: of a prompt by its context and features, see `PromptMemory.number`.
    """
    features = [c["model_conds"][FEATURES].cond for cond in conds for c in cond or () if FEATURES in c["model_conds"]]
    if not features:
        return conds
    count, width = max(f.shape[1] for f in features), math.lcm(*(f.shape[2] for f in features))

    def complete(cond: dict) -> dict:
        given = cond["model_conds"]
        if "c_crossattn" not in given:
            return cond
        length = given["c_crossattn"].cond.shape[1]
        slots = given[SLOTS].cond if SLOTS in given else torch.zeros(1, 0, 1)
        conds: dict[str, Any] = {SLOTS: comfy.conds.CONDCrossAttn(pad(slots, (0, 0, 0, length - slots.shape[1])))}
        for name, shape in ((FEATURES, (width,)), (TERMS, (3,)), (BARRED, (REGION, REGION))):
            had = given[name].cond if name in given else torch.zeros(1, 0, *shape)
            if name == FEATURES:
                had, _ = alike([had, torch.zeros(1, 0, width)])
            missing = had.new_zeros(len(had), count - had.shape[1], *shape)
            conds[name] = comfy.conds.CONDRegular(torch.cat([had, missing], dim=1))
        known = number(given["c_crossattn"].cond, given[FEATURES].cond) if FEATURES in given else 0
        conds[PROMPT] = comfy.conds.CONDRegular(torch.tensor([[float(known)]]))
        return {**cond, "model_conds": {**given, **conds}}

    return [cond if cond is None else [complete(c) for c in cond] for cond in conds]


def report(text: str, bindings: Sequence[Binding], absent: Sequence[Subject] = ()) -> str:
    """Which subject sits on which token, and who is left out, for people."""
    lines = [f"subject {i}: '{b.subject.word}' → token {b.position}" for i, b in enumerate(bindings, start=1)]
    left_out = [f"left out: '{s.word}', of whom there is no picture" for s in absent]
    return "\n".join([f"'{text}'", *(lines or ["no subjects"]), *left_out])
