"""Routers fitted to an expert that had none, or better ones: put on, kept in a small file of their own, put on again (ours)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from torch import nn

from .adapter import MoAAdapter
from .files import StoredFileError, read_tensors, write_tensors
from .fingerprint import fingerprint
from .image_prompt import ImagePromptAdapter
from .router import Router

FORMAT, VERSION = "moa-routers", "1"
Expert = MoAAdapter | ImagePromptAdapter


class RouterHeader(NamedTuple):
    """What the file says of itself."""

    kind: Literal["linear", "mlp"]
    expert: str
    """`expert_name` of the adapter they were fitted to."""
    licence: str
    provenance: dict[str, Any]


def put_on(adapter: Expert, kind: Literal["linear", "mlp"], operations: ModuleType | type = nn) -> None:
    """Give every layer a neutral router in float32, in the place of what it had."""
    device = next(adapter.layers.parameters()).device
    layers: Any = adapter.layers.values()  # whose kinds all have a spec and a router
    for layer in layers:
        layer.router = Router(layer.spec.hidden, kind, operations=operations, device=device)
        layer.router.zero()
    adapter.config = replace(adapter.config, router=kind)


def routers_of(adapter: nn.Module) -> Iterator[nn.Module]:
    """The routers of its layers."""
    return (module for module in adapter.modules() if isinstance(module, Router))


def expert_name(adapter: Expert) -> str:
    """A fingerprint of everything but the routers."""
    return fingerprint(adapter, counts=lambda name: ".router." not in name)


def save_routers(adapter: Expert, path: Path, *, expert: str, licence: str, provenance: Mapping[str, Any]) -> None:
    """Write the routers alone, atomically.

    Args: expert: `expert_name` of the adapter as it is loaded for use, in its file's own precision.
    Raises: OSError saying how much room is missing.
    """
    tensors = {name: t for name, t in adapter.state_dict().items() if ".router." in name}
    header = {"format": FORMAT, "format_version": VERSION, "router": adapter.config.router, "expert": expert}
    write_tensors(tensors, path, {**header, "licence": licence, "provenance": json.dumps(dict(provenance))})


def load_routers(adapter: Expert, path: Path, operations: ModuleType | type = nn) -> RouterHeader:
    """Put the routers of a file on the adapter they were fitted to.

    Raises: StoredFileError when the file is damaged or something else, or fitted to another adapter.
    """
    tensors, header = read_tensors(path, FORMAT, VERSION, "Training with only_routers makes such files.")
    if header.get("expert") != expert_name(adapter):
        raise StoredFileError(
            f"The routers in '{path}' were fitted to another adapter file. Choose the adapter that they were fitted to, or fit "
            "routers to this one."
        )
    kind: Any = header["router"]
    put_on(adapter, kind, operations)
    adapter.load_state_dict(tensors, strict=False)
    adapter.eval().requires_grad_(False)
    return RouterHeader(kind, header["expert"], header.get("licence", "not stated"), json.loads(header["provenance"]))
