"""Runs `main(arguments)` of one module of our pack with the host at hand: `python -m devtools.run_module benchmarks.sampling`."""

from __future__ import annotations

import importlib
import sys

from . import host
from .in_process import PACK, import_host, import_pack


def main(module: str, arguments: list[str]) -> None:
    import torch  # here, because only `.venv` has it

    import_host(host.find(), cpu=not torch.cuda.is_available())
    import_pack()
    importlib.import_module(f"{PACK}.{module}").main(arguments)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
