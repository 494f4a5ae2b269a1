"""Runs `main(arguments)` of one module of our pack beside the host: `python -m devtools.run_module benchmarks.sampling`."""

from __future__ import annotations

import importlib
import sys

from . import host
from .in_process import PACK, import_host, import_pack, use_large_pages


def main(module: str, arguments: list[str], *, pytorch_attention: bool = False) -> None:
    """Import the host (`in_process.import_host`) and the pack, then run `comfyui_moa.<module>`."""
    import torch  # here, because only `.venv` has it

    import_host(host.find(), cpu=not torch.cuda.is_available(), pytorch_attention=pytorch_attention)
    import_pack()
    importlib.import_module(f"{PACK}.{module}").main(arguments)


if __name__ == "__main__":
    use_large_pages()
    main(sys.argv[1], sys.argv[2:])
