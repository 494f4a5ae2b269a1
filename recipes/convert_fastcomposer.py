"""FastComposer's published weights as a MoA adapter: `python dev.py convert-fastcomposer pytorch_model.bin [out.safetensors]`.

Nothing but tensors is read from the file. What an adapter cannot hold is said on the screen and in the new file.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..moa_attention.adapter import MoAAdapter
from ..moa_attention.checkpoint import AdapterFileError, save_adapter
from ..moa_attention.importers.fastcomposer import TAIL, UNET, bare, import_fastcomposer
from ..nodes.adapter_files import read_tensors

LICENCE = "MIT"


def provenance(tensors: Mapping[str, Tensor], adapter: MoAAdapter) -> dict[str, str]:
    """Where the adapter comes from, what it holds and what it had to leave, for people."""
    whole = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(UNET))
    kept = sum(parameter.numel() for parameter in adapter.layers.parameters())
    return {
        "converted from": "FastComposer (arXiv 2305.10431, mit-han-lab/fastcomposer)",
        "carried over": f"{len(adapter.layers)} attention layers with their output projections, the post-fuse module, the last "
        f"{TAIL} blocks of the image encoder",
        "left behind": f"{(whole - kept) / 1e6:.1f} of {whole / 1e6:.1f} million parameters of its U-Net, which was fine-tuned "
        "whole: convolutions, norms, feed-forwards, projections in and out, time embedding. Those of your checkpoint stand in",
        "not needed": "text encoder and VAE: its training left them as they were, your checkpoint's are used",
        "trained from": "Stable Diffusion 1.5 (CreativeML OpenRAIL-M) and CLIP ViT-L/14, on FFHQ's pictures, whose terms may "
        "reach further than the file's",
        "router": "none of its own; ApplyMoA has attention, mask and constant",
    }


def convert(source: Path, target: Path) -> dict[str, str]:
    """Write the adapter in fp16; returns its provenance.

    Raises: AdapterFileError when the source is something else; OSError as `save_adapter`.
    """
    tensors = bare(read_tensors(source))
    adapter = import_fastcomposer(tensors)
    told = provenance(tensors, adapter)
    save_adapter(adapter, target, licence=LICENCE, provenance=told, dtype=torch.float16)
    return told


def main(argv: list[str]) -> None:
    """Convert a file and say what became of it."""
    parser = argparse.ArgumentParser(prog="convert-fastcomposer", description=__doc__)
    parser.add_argument("source", type=Path, help="pytorch_model.bin of mit-han-lab/fastcomposer")
    parser.add_argument("target", type=Path, nargs="?", help="a .safetensors file; by default beside the source")
    options = parser.parse_args(argv)
    target = options.target or options.source.with_name("fastcomposer.safetensors")
    if target.suffix != ".safetensors":
        parser.error(f"the adapter is a .safetensors file, not '{target}'")
    try:
        told = convert(options.source, target)
    except (AdapterFileError, OSError) as error:
        sys.exit(f"convert-fastcomposer: {error}")
    print(*(f"{name}: {value}" for name, value in told.items()), sep="\n")
    print(f"{target}: {target.stat().st_size / 2**20:.0f} MiB, licence {LICENCE}. Put it into ComfyUI/models/moa.")
