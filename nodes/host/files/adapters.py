"""From a file to an adapter in the host's care."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.ops

from ....moa_attention.formats import registry
from ....moa_attention.formats.plan import Header
from ....moa_attention.formats.routers import load_routers
from ....moa_attention.formats.tensors import StoredFile, open_stored
from ....moa_attention.method.factory import Factory
from ...sockets import LoadedAdapter
from ..model.patch import host_patcher
from .folders import adapter_path, router_path
from .pickled import open_pickled

SAFETENSORS = (".safetensors", ".sft")


def changes_weight(layer: object) -> bool:
    """Whether the host changes a layer's weight on its way, as for weights that it loads in parts."""
    return bool(getattr(layer, "weight_function", None))


HOST = Factory(comfy.ops.manual_cast, changes_weight=changes_weight)
"""The host's layers, which cast weights on use."""


def named_adapter(name: str, router: str | None = None) -> LoadedAdapter:
    """The adapter behind an entry of the drop-down, with the routers behind an entry of theirs.

    Raises: FileNotFoundError and StoredFileError as `adapter_path`, `router_path` and `open_adapter`.
    """
    patcher, header = open_adapter(adapter_path(name), router_path(router) if router else None)
    return LoadedAdapter(patcher, name, header.subjects or patcher.model.identity, header.licence, header.provenance)


def load_adapter_patcher(path: Path, routers: Path | None = None, disable_dynamic: bool = False) -> Any:
    """Read an adapter file into a patcher that the host can make again by itself (multi-GPU clones, dynamic VRAM)."""
    return open_adapter(path, routers, disable_dynamic)[0]


def open_adapter(path: Path, routers: Path | None = None, disable_dynamic: bool = False) -> tuple[Any, Header]:
    """A patcher of the adapter in a file, and its header.

    Args: routers: a file of routers that were fitted to it, which replace its own.
    Raises: StoredFileError when no kind of adapter fits, the file is damaged, or the routers belong to another adapter.
    """
    adapter, header = registry.load_stored(open_file(path), HOST)
    if routers is not None:
        fitted = load_routers(adapter, routers, HOST)
        source = {"routers": f"fitted, {routers.name}", **{f"routers, {k}": v for k, v in fitted.provenance.items()}}
        header = header._replace(config=adapter.config, provenance={**header.provenance, "router": "fitted", **source})
    patcher = host_patcher(adapter, disable_dynamic)
    patcher.cached_patcher_init = (load_adapter_patcher, (path, routers))
    return patcher, header


def open_file(path: Path) -> StoredFile:
    """A file of tensors. Pickled files are read as plain tensors only; anything else in them is refused.

    Raises: StoredFileError.
    """
    return open_stored(path) if path.suffix.lower() in SAFETENSORS else open_pickled(path)
