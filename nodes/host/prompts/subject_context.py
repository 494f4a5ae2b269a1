"""Text embeddings that carry their subjects through other nodes.

A node that concatenates, averages, scales or rebuilds prompts keeps the dict of one of them at most, but it computes with the
tensors of all. Therefore the tensor itself records which of its tokens belong to subjects, and with which weight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...sockets import Subject
from .subject_regions import region_entries

ENCODED = "moa_encoded"
"""Name in a conditioning's dict: the embedding as it was encoded, for nodes that change it beyond recognition."""
FROM_FILE = (
    "a prompt with subjects was loaded from a file, and files of conditionings hold no subjects. Encode the prompt again with 'MoA "
    "Text Encode (Prompt)'."
)


class Binding(NamedTuple):
    """A subject and the token of the prompt that it takes."""

    subject: Subject
    position: int
    """Index in the context: chunk · tokens per chunk + place in the chunk."""
    weight: float = 1.0
    """The part of the token that is left of it after averages and multiples."""
    lost: str = ""
    """Why the token is no longer the subject's, if it is not."""
    rows: tuple[int, ...] = ()
    """The prompts of a batch that have it; none: all."""


class SubjectContext(Tensor):
    """A text embedding (B,M,T) whose concatenations, sums, multiples and parts keep the subjects.

    The result of any other operation is an ordinary tensor.
    """

    bindings: tuple[Binding, ...]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if not isinstance(result, Tensor) or result.ndim != 3:
                return result
            found = follow(getattr(func, "__name__", "").strip("_"), args, kwargs or {})
        if found is None:
            return result
        if isinstance(result, SubjectContext):  # in place, or without any effect
            result.bindings = tuple(found)
            return result
        return carry(result, found)

    def __copy__(self) -> SubjectContext:
        return carry(self, self.bindings)

    def __deepcopy__(self, memo: dict) -> SubjectContext:
        del memo
        return carry(without_subjects(self).clone(), self.bindings)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as an ordinary tensor, so that any program can load the file."""
        return without_subjects(self).__reduce_ex__(protocol)


class Encoded(NamedTuple):
    """The entry `ENCODED` of a conditioning: opaque to nodes that treat every tensor of the dict alike."""

    context: SubjectContext

    def __copy__(self) -> Encoded:
        return self

    def __deepcopy__(self, memo: dict) -> Encoded:
        return Encoded(deepcopy(self.context, memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Saved as an empty dict, the simplest object that PyTorch loads with `weights_only`."""
        del protocol
        return OrderedDict, ()


def carry(context: Tensor, bindings: Iterable[Binding]) -> SubjectContext:
    """The same embedding with these subjects."""
    with torch._C.DisableTorchFunctionSubclass():
        result = context.as_subclass(SubjectContext)
    result.bindings = tuple(bindings)
    return result


def without_subjects(context: Tensor) -> Tensor:
    """The same embedding as an ordinary tensor."""
    with torch._C.DisableTorchFunctionSubclass():
        return context.as_subclass(Tensor)


def with_subjects(context: Tensor, extra: dict[str, Any], bindings: Sequence[Binding]) -> list:
    """An entry of a CONDITIONING, (1,M,T) and its dict, with subjects bound to its tokens."""
    carrier = carry(context, bindings)
    regions = region_entries(extra, distinct(bindings))
    return [carrier, {**extra, ENCODED: Encoded(carrier), **regions}]


def distinct(bindings: Iterable[Binding]) -> list[Subject]:
    """Their subjects, each once."""
    return list({id(b.subject): b.subject for b in bindings}.values())


def subjects_of(cond: dict[str, Any]) -> tuple[list[Binding], list[str]]:
    """The subjects of a cond of the sampler, and what users must know about those that other nodes lost or changed.

    Reads values of the embedding: for the start of a run, not for its steps.
    """
    context, encoded = cond.get("cross_attn"), cond.get(ENCODED)
    if isinstance(context, SubjectContext):
        bindings, notes = list(context.bindings), []
    elif encoded is not None and not isinstance(encoded, Encoded):
        return [], [FROM_FILE]
    elif context is not None and encoded is not None:
        bindings, notes = recovered(context, encoded.context)
    else:
        return [], []
    if not bool(context.any()):
        # An embedding of zeros, as Conditioning Zero Out makes it, has no subject but those that were added to the zeros.
        added = isinstance(context, SubjectContext)
        return [b for b in bindings if added and b.subject.whole_prompt], []
    held = [b for b in bindings if not b.lost]
    subjects = {id(b.subject) for b in held}
    lost = [b for b in bindings if b.lost and id(b.subject) not in subjects]
    return held, notes + [f"the subject '{b.subject.word}' is not in this run: {b.lost}." for b in lost]


def recovered(context: Tensor, encoded: SubjectContext) -> tuple[list[Binding], list[str]]:
    """The subjects of an embedding that a node computed by other operations than those in `RULES`, by its dict."""
    length = context.shape[1]
    bindings = [b if b.position < length else b._replace(lost=cut_off(length)) for b in encoded.bindings]
    before, now = without_subjects(encoded), without_subjects(context).to(encoded.device, encoded.dtype)
    found, notes = [], []
    for each in bindings:
        rows = (
            []
            if each.lost
            else (now[:, each.position] == before[:, each.position]).all(dim=-1).nonzero().flatten().tolist()
        )
        if each.lost or len(rows) == len(now):
            found.append(each)
        elif rows:
            found.append(each._replace(rows=tuple(rows)))
            notes.append(
                f"a node joined several prompts into a batch. The subject '{each.subject.word}' is only in the pictures of its own "
                "prompt, and the subjects of the other prompts are lost. Sample each prompt by itself to keep them."
            )
        else:
            found.append(each)
            notes.append(
                f"a node changed the embedding of '{each.subject.word}' after 'MoA Text Encode (Prompt)'. How much of the subject is "
                "left cannot be known, so it keeps its full strength."
            )
    return found, notes


def follow(name: str, args: Any, kwargs: dict[str, Any]) -> Iterable[Binding] | None:
    """The subjects of an operation's result; None where it has no rule, or is called with arguments that its rule lacks."""
    rule = RULES.get(name)
    if rule is None:
        return None
    try:
        call = signature(rule).bind(*args, **kwargs)
    except TypeError:
        return None
    return rule(*call.args, **call.kwargs)


def bindings_of(x: Any) -> tuple[Binding, ...]:
    """Those of an operand; none of a number or an ordinary tensor."""
    return x.bindings if isinstance(x, SubjectContext) else ()


def kept(input: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Binding, ...]:
    """Rule of operations that change no value."""
    return bindings_of(input)


def scaled(bindings: Iterable[Binding], factor: float) -> list[Binding]:
    """At a multiple of their weights; without weight nothing remains."""
    return [b._replace(weight=b.weight * factor) for b in bindings if b.weight * factor > 0]


def multiplied(input: Any, other: Any) -> list[Binding] | None:
    """Rule of products with a number."""
    number, bindings = (other, bindings_of(input)) if isinstance(input, SubjectContext) else (input, bindings_of(other))
    return None if isinstance(number, Tensor) and number.numel() != 1 else scaled(bindings, float(number))


def divided(input: Any, other: Any) -> list[Binding] | None:
    """Rule of quotients with a number."""
    if not isinstance(input, SubjectContext) or (isinstance(other, Tensor) and other.numel() != 1) or not float(other):
        return None
    return scaled(input.bindings, 1 / float(other))


def added(input: Any, other: Any) -> list[Binding] | None:
    """Rule of sums: a token has one subject of an adapter, that with the larger weight."""
    if isinstance(input, Tensor) and isinstance(other, Tensor) and input.shape != other.shape:
        return None
    held: dict[tuple[int, str], Binding] = {}
    lost = []
    for binding in sorted((*bindings_of(input), *bindings_of(other)), key=lambda each: -each.weight):
        if binding.lost:
            lost.append(binding)
            continue
        place = (binding.position, binding.subject.encoder)
        first = held.setdefault(place, binding)
        if first.subject is not binding.subject:
            reason = f"its prompt was averaged with another whose '{first.subject.word}' takes the same token"
            lost.append(binding._replace(lost=reason))
        elif first is not binding:
            held[place] = first._replace(weight=first.weight + binding.weight)
    return [*held.values(), *lost]


def interpolated(input: Any, end: Any, weight: Any) -> list[Binding] | None:
    """Rule of `lerp` with a number."""
    if isinstance(weight, Tensor) and weight.numel() != 1:
        return None
    parts = ((input, 1 - float(weight)), (end, float(weight)))
    return added(*(carry(x, scaled(bindings_of(x), part)) for x, part in parts))


def joined(tensors: Sequence[Tensor], dim: int = 0) -> list[Binding] | None:
    """Rule of concatenations along the tokens. Those along the batch are the sampler's own."""
    if dim not in (1, -2):
        return None
    found, offset = [], 0
    for tensor in tensors:
        found += [b._replace(position=b.position + offset) for b in bindings_of(tensor)]
        offset += tensor.shape[1]
    return found


def sliced(context: SubjectContext, index: Any) -> list[Binding] | None:
    """Rule of slices of the tokens."""
    parts = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(part, slice) for part in parts):
        return None
    places = range(context.shape[1])[parts[1] if len(parts) > 1 else slice(None)]
    return [
        b._replace(position=places.index(b.position)) if b.position in places else b._replace(lost=cut_off(len(places)))
        for b in context.bindings
    ]


def cut_off(length: int) -> str:
    """The reason for a subject whose token is missing."""
    return f"a node cut the prompt to {length} tokens, and the subject's word is not among them"


RULES: dict[str, Callable[..., Iterable[Binding] | None]] = {
    **dict.fromkeys(
        ("clone", "detach", "contiguous", "to", "cpu", "cuda", "float", "half", "double", "bfloat16"), kept
    ),
    **dict.fromkeys(("mul", "multiply", "rmul"), multiplied),
    **dict.fromkeys(("div", "divide", "truediv", "true_divide"), divided),
    **dict.fromkeys(("add", "radd"), added),
    **dict.fromkeys(("cat", "concat", "concatenate"), joined),
    "lerp": interpolated,
    "getitem": sliced,
}
"""Operations by name, and the subjects of their results; None: an ordinary tensor."""
