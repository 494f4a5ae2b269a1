"""From a file to an adapter in the host's care: our own format, or an IP-Adapter's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.ops
import comfy.utils
from safetensors import SafetensorError, safe_open

from ..moa_attention.checkpoint import AdapterFileError, Header, load_adapter, read_header
from ..moa_attention.fitted import load_routers
from ..moa_attention.importers.ip_adapter import Kind, flatten, import_ip_adapter, is_ip_adapter
from .patch import host_patcher

LICENCE_OF_IMPORTS = "as its publisher states; the file itself says nothing"


def load_adapter_patcher(path: Path, routers: Path | None = None, disable_dynamic: bool = False) -> Any:
    """Read an adapter file into a patcher that the host can make again by itself (multi-GPU clones, dynamic VRAM)."""
    return open_adapter(path, routers, disable_dynamic)[0]


def open_adapter(path: Path, routers: Path | None = None, disable_dynamic: bool = False) -> tuple[Any, Header]:
    """A patcher of the adapter in a file, and what the file says of itself or turned out to be.

    Args: routers: a file of routers that were fitted to it, which decide in the place of its own.
    Raises: AdapterFileError when it is neither a MoA adapter nor an IP-Adapter, or damaged; StoredFileError for routers.
    """
    if is_foreign(path):
        module, kind = import_ip_adapter(read_tensors(path), comfy.ops.manual_cast)
        header = Header(module.config, LICENCE_OF_IMPORTS, told(kind))
    else:
        header, module = read_header(path), load_adapter(path, operations=comfy.ops.manual_cast, assign=True)
    if routers is not None:
        fitted = load_routers(module, routers, comfy.ops.manual_cast)
        told_more = {"routers": f"fitted, {routers.name}", **{f"routers, {k}": v for k, v in fitted.provenance.items()}}
        header = header._replace(
            config=module.config, provenance={**header.provenance, "router": "fitted", **told_more}
        )
    patcher = host_patcher(module, disable_dynamic)
    patcher.cached_patcher_init = (load_adapter_patcher, (path, routers))
    return patcher, header


def is_foreign(path: Path) -> bool:
    """Whether a file must be imported; damaged ones are left to `read_header`, which says what is wrong."""
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="pt") as file:
            return is_ip_adapter(file.keys())
    except (SafetensorError, OSError):
        return False


def read_tensors(path: Path) -> dict[str, Any]:
    """All tensors of a file. Pickled ones are read as plain tensors only; whatever else is in them is refused.

    Raises: AdapterFileError.
    """
    try:
        content: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
        return flatten(content)
    except Exception as error:  # whatever a damaged or malicious pickle makes of the reader
        raise AdapterFileError(
            f"'{path}' cannot be read as tensors: {error}. Download it again, as .safetensors if there is one."
        ) from error


def told(kind: Kind) -> dict[str, Any]:
    """An import's provenance, for people."""
    tokens = kind.tokens or "one for each patch"
    return {"imported": f"IP-Adapter, kind {kind.name}", "image tokens": tokens, "router": "none of its own"}
