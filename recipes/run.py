"""Run one recipe inside a ComfyUI process: `python recipes/run.py mini.vae --minutes 12`.

Puts the host on the path (`$COMFYUI_PATH`, or `.host/ComfyUI`), registers this repository as the package
`comfyui_moa`, whatever its folder is called, and calls `main(argv)` of the module named first.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "comfyui_moa"


def find_host() -> Path:
    """The folder of a ComfyUI checkout."""
    host = Path(os.environ.get("COMFYUI_PATH", ROOT / ".host" / "ComfyUI"))
    if not (host / "comfy" / "sd.py").is_file():
        sys.exit(f"{host} is not a ComfyUI folder: set COMFYUI_PATH")
    return host


def use_host() -> None:
    """Make `comfy` importable. Its device is chosen on first import, so a machine without CUDA must say so before."""
    import torch

    sys.path.insert(0, str(find_host()))
    from comfy.cli_args import args

    args.cpu = not torch.cuda.is_available()
    args.use_pytorch_cross_attention = True  # the host's choice for CPUs is built to save memory, not time


def register() -> None:
    """Make this repository importable as `comfyui_moa` without running its entry point (which wants a whole server)."""
    spec = importlib.util.spec_from_loader(PACKAGE, loader=None, is_package=True)
    package = importlib.util.module_from_spec(spec)
    package.__path__ = [str(ROOT)]
    sys.modules[PACKAGE] = package


def main(argv: list[str]) -> None:
    """Import `comfyui_moa.recipes.<argv[0]>` and hand the other arguments to its `main`."""
    if not argv:
        sys.exit(__doc__)
    use_host()
    register()
    importlib.import_module(f"{PACKAGE}.recipes.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
