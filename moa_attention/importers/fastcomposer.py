"""FastComposer's published model (arXiv 2305.10431): its attention, fusion and image encoder as a MoA adapter for SD1.5.

It was trained by fine-tuning a whole U-Net; the attention layers become the personalised branch, what lies between them
has no place in an adapter and is left. Told by names and shapes of tensors, never by the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import ModuleType

from torch import Tensor, nn

from ..adapter import MoAAdapter
from ..checkpoint import AdapterFileError
from ..config import LayerSpec, MoAConfig

Tensors = Mapping[str, Tensor]
UNET, FUSION, VISION = "unet.", "postfuse_module.", "image_encoder.vision_model."
PROJECTION = "image_encoder.visual_projection."
ENCODER = "clip-vit-large-patch14"
TAIL = 2
"""Blocks of the image encoder that were fine-tuned, the last ones."""
HEADS = 8
"""Of every attention layer of SD1.5."""
PLACES = [
    *((f"input_{1 + 3 * i + j}", f"down_blocks.{i}.attentions.{j}") for i in range(3) for j in range(2)),
    ("middle_0", "mid_block.attentions.0"),
    *((f"output_{3 * i + j}", f"up_blocks.{i}.attentions.{j}") for i in range(1, 4) for j in range(3)),
]
"""Transformer blocks of SD1.5 in execution order: the host's name of the place, and the file's."""


def bare(tensors: Tensors) -> Tensors:
    """The tensors under the names of the published code, whatever model they were nested in.

    Raises: AdapterFileError when they are not a FastComposer model's, saying what was sought and found.
    """
    mark = f"{FUSION}mlp1.fc1.weight"
    prefix = next((name.removesuffix(mark) for name in tensors if name.endswith(mark)), None)
    if prefix is None:
        found = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise AdapterFileError(
            f"Not a FastComposer model: no '{mark}', but {found} ... Wanted is the pytorch_model.bin of "
            "mit-han-lab/fastcomposer, with U-Net, image encoder and post-fuse module."
        )
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def size(tensors: Tensors, name: str, axis: int = 0) -> int:
    """One dimension of a tensor.

    Raises: AdapterFileError when that tensor is missing.
    """
    if name not in tensors:
        raise AdapterFileError(f"A FastComposer model that lacks '{name}': the file is incomplete. Download it again.")
    return tensors[name].shape[axis]


def layer_specs(tensors: Tensors) -> Iterator[LayerSpec]:
    """All attention layers in execution order.

    Raises: AdapterFileError when the U-Net is not SD1.5's.
    """
    there = {name.rpartition(".transformer_blocks.")[0] for name in tensors if name.endswith(".attn2.to_q.weight")}
    strange = there - {UNET + theirs for _, theirs in PLACES}
    if strange or any(".transformer_blocks.1." in name for name in tensors):
        raise AdapterFileError(
            f"A FastComposer model whose U-Net is not SD1.5's: {len(there)} places with attention"
            + (f", one of them {min(strange)}" if strange else ", some with several transformers")
            + f"; SD1.5 has {len(PLACES)} with one each."
        )
    outermost = None
    for depth, (ours, theirs) in enumerate(PLACES):
        for which in ("attn1", "attn2"):
            keys = f"{UNET}{theirs}.transformer_blocks.0.{which}.to_k.weight"
            hidden, context = size(tensors, keys, 0), size(tensors, keys, 1)
            outermost = outermost or hidden
            yield LayerSpec(f"{ours}_0_{which}", depth, hidden, context, HEADS, hidden != outermost)


def read_config(tensors: Tensors) -> MoAConfig:
    """What adapter these tensors make.

    Raises: AdapterFileError as `size` and `layer_specs`.
    """
    return MoAConfig(
        base="sd15",
        layers=tuple(layer_specs(tensors)),
        text_width=size(tensors, f"{FUSION}layer_norm.weight"),
        image_encoder=ENCODER,
        image_width=size(tensors, f"{PROJECTION}weight"),
        output_projection="own",
        router="none",
        fusion="fastcomposer",
        encoder_tail=TAIL,
        encoder_width=size(tensors, f"{VISION}post_layernorm.weight"),
    )


def prefixes(tensors: Tensors) -> Iterator[tuple[str, str]]:
    """Beginnings of the adapter's names with those of the file's, the more particular first."""
    blocks = {name.split(".")[4] for name in tensors if name.startswith(f"{VISION}encoder.layers.")}
    first = max(0, len(blocks) - TAIL)
    yield from ((f"tail.layers.{i}.", f"{VISION}encoder.layers.{first + i}.") for i in range(TAIL))
    yield "tail.visual_projection.", PROJECTION
    yield "tail.", VISION
    yield "fusion.", FUSION
    for ours, theirs in PLACES:
        for which in ("attn1", "attn2"):
            to, of = f"layers.{ours}_0_{which}.", f"{UNET}{theirs}.transformer_blocks.0.{which}."
            yield f"{to}to_out.", f"{of}to_out.0."
            yield to, of


def import_fastcomposer(tensors: Tensors, operations: ModuleType | type = nn) -> MoAAdapter:
    """Build the adapter from a file's tensors, which it keeps instead of copying.

    Raises: AdapterFileError when it is none, of another base, incomplete, or its tensors do not fit together.
    """
    tensors = bare(tensors)
    adapter = MoAAdapter(read_config(tensors), operations=operations, device="meta")
    pairs = list(prefixes(tensors))
    chosen = {}
    for name in adapter.state_dict():
        ours, theirs = next(pair for pair in pairs if name.startswith(pair[0]))
        source = theirs + name.removeprefix(ours)
        size(tensors, source)
        chosen[name] = tensors[source]
    try:
        adapter.load_state_dict(chosen, strict=True, assign=True)
    except RuntimeError as error:
        raise AdapterFileError(f"A FastComposer model whose tensors do not fit together: {error}") from error
    return adapter.eval().requires_grad_(False)
