"""Routers fitted to an adapter whose experts stay as they are, in a small file of their own (ours)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from ..adapters.base import Adapter
from ..method.factory import PLAIN, Factory
from ..method.router import Router
from .adapter import parse_provenance
from .errors import StoredFileError, malformed, printable
from .fingerprint import fingerprint
from .plan import fill_module
from .tensors import open_expected, write_tensors

FORMAT, VERSION = "moa-routers", "1"
RouterKind = Literal["linear", "mlp"]


class RouterHeader(NamedTuple):
    """What the file states about itself."""

    kind: RouterKind
    expert: str
    """`expert_name` of the adapter they were fitted to."""
    licence: str
    provenance: dict[str, Any]


def new_routers(adapter: Adapter, kind: RouterKind, factory: Factory) -> nn.ModuleDict:
    """A router for every layer, by layer name, without initial values."""
    layers: Any = adapter.layers.values()  # whose kinds all have a spec and a router
    return nn.ModuleDict({layer.spec.name: Router(layer.spec.hidden, kind, factory) for layer in layers})


def set_routers(adapter: Adapter, kind: RouterKind, routers: nn.ModuleDict) -> None:
    """Replace the router of every layer."""
    for name, router in routers.items():
        adapter.layers[name].router = router
    adapter.config = replace(adapter.config, router=kind)


def attach_routers(adapter: Adapter, kind: RouterKind, factory: Factory = PLAIN) -> None:
    """Replace the router of every layer by a neutral one in float32."""
    factory = replace(factory, device=next(adapter.layers.parameters()).device, dtype=None)
    routers = new_routers(adapter, kind, factory)
    for router in routers.values():
        assert isinstance(router, Router)
        router.zero()
    set_routers(adapter, kind, routers)


def routers_of(adapter: nn.Module) -> Iterator[nn.Module]:
    """The routers of its layers."""
    return (module for module in adapter.modules() if isinstance(module, Router))


def expert_name(adapter: Adapter) -> str:
    """A fingerprint of everything but the routers."""
    return fingerprint(adapter, counts=lambda name: ".router." not in name)


def save_routers(adapter: Adapter, path: Path, *, expert: str, licence: str, provenance: Mapping[str, Any]) -> None:
    """Write the routers alone, atomically.

    Args: expert: `expert_name` of the adapter as it is loaded for sampling, in its file's own precision.
    Raises: OSError stating the room that is missing.
    """
    tensors = {name: t for name, t in adapter.state_dict().items() if ".router." in name}
    header = {"format": FORMAT, "format_version": VERSION, "router": adapter.config.router, "expert": expert}
    write_tensors(tensors, path, {**header, "licence": licence, "provenance": json.dumps(dict(provenance))})


def load_routers(adapter: Adapter, path: Path, factory: Factory = PLAIN) -> RouterHeader:
    """Attach the routers of a file, exactly one for each layer, to the adapter that they were fitted to.

    Raises: StoredFileError when the file is damaged or something else, fitted to another adapter, or lacks a router.
    """
    stored = open_expected(path, FORMAT, VERSION, "Training with only_routers makes such files.")
    header = stored.header or {}
    kind: Any = header.get("router")
    if kind not in ("linear", "mlp"):
        raise malformed(path, f"its routers must be linear or mlp, found {printable(kind)}")
    provenance = parse_provenance(stored)
    if header.get("expert") != expert_name(adapter):
        raise StoredFileError(
            path,
            "contains routers that were fitted to another adapter file. Choose the adapter that they were fitted to, or fit "
            "routers to this one.",
        )
    routers = new_routers(adapter, kind, replace(factory, device="meta", dtype=None))
    in_their_places = {name: nn.ModuleDict({"router": router}) for name, router in routers.items()}
    as_in_the_file = nn.ModuleDict({"layers": nn.ModuleDict(in_their_places)})
    fill_module(stored, as_in_the_file, {name: name for name in stored.tensors}, f"{kind} routers for this adapter")
    set_routers(adapter, kind, routers)
    return RouterHeader(kind, header["expert"], header.get("licence", "not stated"), provenance)
