"""The mean of several adapters: `python dev.py merge one.safetensors two.safetensors --weights 2 1 --out mean.safetensors`.

The adapters must have the same architecture and base model. Average adapters of one run, or of runs that continue the same
adapter: weights of separate trainings are too different for a mean.
"""

import argparse
import sys
from pathlib import Path

from ..moa_attention.formats.merging import merge_adapters


def main(argv: list[str]) -> None:
    """Write the mean and print what it is made of."""
    parser = argparse.ArgumentParser(prog="merge", description=__doc__, allow_abbrev=False)
    parser.add_argument("files", type=Path, nargs="+", help="adapter files (.safetensors)")
    parser.add_argument("--weights", type=float, nargs="+", help="one for each file, by default equal ones")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file that is written")
    options = parser.parse_args(argv)
    if options.out.suffix != ".safetensors":
        parser.error(f"--out must be a .safetensors file, not '{options.out}'")
    if options.out.exists():
        parser.error(f"--out: '{options.out}' exists already. Choose another name")
    try:
        record = merge_adapters(options.files, options.weights or [1.0] * len(options.files), options.out)
    except (ValueError, OSError) as error:
        sys.exit(f"merge: {error}")
    print(f"{options.out} is {record['merged']}, licence: {record['data_licence']}. Put it into ComfyUI's models/moa.")
