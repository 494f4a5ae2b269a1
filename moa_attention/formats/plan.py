"""From a file to a module: compared on the meta device first, filled with the file's tensors then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..adapters.base import Adapter
from ..method.spec import MoAConfig
from .errors import StoredFileError, enumeration, printable
from .tensors import StoredFile


class Header(NamedTuple):
    """What the file states about itself."""

    config: MoAConfig
    licence: str
    provenance: dict[str, Any]
    """Free text and numbers: data, steps, losses."""
    subjects: str = ""
    """The `Adapter.identity` that the file declares, so that copies in other precisions share their subjects; empty: none."""


class Plan(NamedTuple):
    """An adapter as the names and shapes in a file describe it."""

    kind: str
    """Of the file, for messages."""
    adapter: Adapter
    """On the meta device."""
    sources: Mapping[str, str]
    """The adapter's names of tensors, with those of the file. Tensors that are not listed are not read."""
    header: Header


class LoadedFile(NamedTuple):
    """An adapter and its file's header."""

    adapter: Adapter
    header: Header


def load_planned(stored: StoredFile, plan: Plan) -> LoadedFile:
    """The adapter with the file's tensors in their own precision.

    Raises: StoredFileError as `fill_module`.
    """
    fill_module(stored, plan.adapter, plan.sources, plan.kind)
    return LoadedFile(plan.adapter, plan.header)


def fill_module(stored: StoredFile, module: nn.Module, sources: Mapping[str, str], kind: str) -> None:
    """Give a module on the meta device the file's tensors, frozen.

    Args: sources: the module's names, with those of the file; kind: of the file, for messages.
    Raises: StoredFileError as `check_fit`, before a tensor is read, and as `check_values`.
    """
    check_fit(stored, module.state_dict(), sources, kind)
    tensors = stored.read(set(sources.values()))
    check_values(stored, tensors)
    try:
        module.load_state_dict({ours: tensors[theirs] for ours, theirs in sources.items()}, strict=True, assign=True)
    except RuntimeError as error:
        raise StoredFileError(stored.path, "changed while it was read. Load it again.") from error
    module.eval().requires_grad_(False)


def check_fit(stored: StoredFile, wanted: Mapping[str, Tensor], sources: Mapping[str, str], kind: str) -> None:
    """Compare names, shapes and precisions.

    Raises: StoredFileError listing missing, unexpected and misshapen tensors, or naming one that holds no numbers with fractions.
    """
    found = {ours: stored.tensors.get(theirs) for ours, theirs in sources.items()}
    absent = [sources.get(name, name) for name in wanted if found.get(name) is None]
    unexpected = [theirs for ours, theirs in sources.items() if ours not in wanted]
    both = [(sources[name], wanted[name], t) for name, t in found.items() if t is not None and name in wanted]
    misshapen = [f"{name} {tuple(t.shape)} instead of {tuple(w.shape)}" for name, w, t in both if t.shape != w.shape]
    problems = {"missing": absent, "unexpected": unexpected, "of another shape": misshapen}
    shown = "; ".join(f"{problem}: {enumeration(names)}" for problem, names in problems.items() if names)
    if shown:
        raise StoredFileError(
            stored.path,
            f"does not contain the tensors of {printable(kind)}: {shown}. Ask its publisher for a new file.",
        )
    whole = next((name for name, w, t in both if w.is_floating_point() != t.is_floating_point()), None)
    if whole is not None:
        precision = str(stored.tensors[whole].dtype).removeprefix("torch.")
        raise StoredFileError(
            stored.path, f"contains '{printable(whole)}' as {precision}; save it as float16 or float32."
        )


def check_values(stored: StoredFile, tensors: Mapping[str, Tensor]) -> None:
    """Raises: StoredFileError naming a tensor that has a value which is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_meta:
            continue  # a shape without values
        values = tensor.half() if tensor.element_size() == 1 else tensor  # torch does not compare 8-bit fractions
        if not torch.stack(torch.aminmax(values)).isfinite().all():
            raise StoredFileError(
                stored.path,
                f"contains NaN or infinite values in '{printable(name)}'. Its training failed, or the file is damaged: download it "
                "again, or ask its publisher for a new file.",
            )
