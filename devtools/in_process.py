"""A host imported into this very process, and our pack imported beside it as `comfyui_moa`."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from .host import ROOT

PACK = "comfyui_moa"


def use_large_pages() -> None:
    """On Linux, PyTorch then asks for large pages for large tensors, which takes the system less time. Before its import."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def import_host(host: Path, *, base: Path | None = None, cpu: bool = True, pytorch_attention: bool = False) -> None:
    """Put ComfyUI first on the path and set its command line before anything of it is imported.

    Args:
        host: folder that holds ComfyUI's `main.py`.
        base: where models, inputs and outputs lie; the host's own tree if None.
        cpu: with a CPU-only torch the host cannot be imported otherwise.
        pytorch_attention: use torch's attention; what the host chooses for CPUs saves memory, not time.
    """
    if "comfy.cli_args" in sys.modules:
        raise RuntimeError("ComfyUI is already imported: choose its base folder and device before that.")
    sys.path.insert(0, str(host))
    from comfy.cli_args import args

    args.cpu = cpu
    args.use_pytorch_cross_attention = pytorch_attention
    if base is not None:
        args.base_directory = str(base)
    import utils.extra_config  # noqa: F401  (first: on hosts before 0.26 a later import finds comfy/utils.py instead)


def import_pack(root: Path = ROOT) -> ModuleType:
    """Import this repository as the package `comfyui_moa`, as the host does under a name of its own."""
    if PACK in sys.modules:
        return sys.modules[PACK]
    spec = importlib.util.spec_from_file_location(PACK, root / "__init__.py", submodule_search_locations=[str(root)])
    if spec is None or spec.loader is None:
        raise ImportError(f"{root} has no __init__.py: this is not the node pack's folder.")
    pack = importlib.util.module_from_spec(spec)
    sys.modules[PACK] = pack
    spec.loader.exec_module(pack)
    return pack
