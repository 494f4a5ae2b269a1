"""FastComposer's published weights as a MoA adapter: `python dev.py convert-fastcomposer pytorch_model.bin [out.safetensors]`.

Only tensors are read from the file. The converter prints what an adapter cannot hold, and records it in the new file.
"""

import argparse
import sys
from pathlib import Path

import torch

from ..moa_attention.adapters.moa import MoAAdapter
from ..moa_attention.formats.adapter import save_adapter
from ..moa_attention.formats.errors import StoredFileError
from ..moa_attention.formats.fastcomposer import LICENCE, TAIL, UNET, FastComposerFile, import_fastcomposer
from ..moa_attention.formats.tensors import StoredFile
from ..nodes.host.files.adapters import open_file


def conversion_record(stored: StoredFile, adapter: MoAAdapter) -> dict[str, str]:
    """The adapter's origin, what was converted and what was left out."""
    unet = [name for published, name in FastComposerFile(stored).sources.items() if published.startswith(UNET)]
    whole = sum(stored.tensors[name].numel() for name in unet)
    kept = sum(parameter.numel() for parameter in adapter.layers.parameters())
    return {
        "converted from": "FastComposer (arXiv 2305.10431, mit-han-lab/fastcomposer)",
        "carried over": f"{len(adapter.layers)} attention layers with their output projections, the post-fuse module, the last "
        f"{TAIL} blocks of the image encoder",
        "left behind": f"{(whole - kept) / 1e6:.1f} of {whole / 1e6:.1f} million parameters of its U-Net, which was fine-tuned "
        "whole: convolutions, norms, feed-forwards, projections in and out, time embedding. Your checkpoint's are used instead",
        "not needed": "text encoder and VAE: FastComposer did not train them, your checkpoint's are used",
        "trained from": "Stable Diffusion 1.5 (CreativeML OpenRAIL-M) and CLIP ViT-L/14, on FFHQ's pictures, whose terms may "
        "restrict more than the file's licence",
        "router": "none of its own; choose attention, mask or constant in Apply MoA",
    }


def convert(source: Path, target: Path) -> dict[str, str]:
    """Write the adapter in fp16; returns its provenance.

    Raises: StoredFileError when the source is no FastComposer checkpoint; OSError as `save_adapter`.
    """
    stored = open_file(source)
    adapter = import_fastcomposer(stored)
    record = conversion_record(stored, adapter)
    save_adapter(adapter, target, licence=LICENCE, provenance=record, dtype=torch.float16)
    return record


def main(argv: list[str]) -> None:
    """Convert a file and print the adapter's provenance."""
    parser = argparse.ArgumentParser(prog="convert-fastcomposer", description=__doc__)
    parser.add_argument("source", type=Path, help="pytorch_model.bin of mit-han-lab/fastcomposer")
    parser.add_argument(
        "target", type=Path, nargs="?", help="a .safetensors file; default: fastcomposer.safetensors beside the source"
    )
    options = parser.parse_args(argv)
    target = options.target or options.source.with_name("fastcomposer.safetensors")
    if target.suffix != ".safetensors":
        parser.error(f"the output must be a .safetensors file, not '{target}'")
    try:
        record = convert(options.source, target)
    except (StoredFileError, OSError) as error:
        sys.exit(f"convert-fastcomposer: {error}")
    print(*(f"{name}: {value}" for name, value in record.items()), sep="\n")
    print(f"{target}: {target.stat().st_size / 2**20:.0f} MiB, licence {LICENCE}. Put it into ComfyUI/models/moa.")
