"""FastComposer's published model (arXiv 2305.10431): its attention, fusion and image encoder as a MoA adapter for SD1.5.

It was trained by fine-tuning a whole U-Net. Its attention layers become the personalised branch; the layers between them have
no place in an adapter and are left out. Files are recognised by names and shapes of tensors, never by the file's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..adapters.moa import MoAAdapter
from ..method.factory import PLAIN, Factory
from ..method.spec import LayerSpec, MoAConfig
from .config import WIDTH, contradictions
from .errors import StoredFileError, enumeration, printable
from .plan import Header, Plan, load_planned
from .tensors import StoredFile

UNET, FUSION, VISION = "unet.", "postfuse_module.", "image_encoder.vision_model."
PROJECTION = "image_encoder.visual_projection."
LICENCE = "MIT"
ENCODER = "clip-vit-large-patch14"
TAIL = 2
"""Blocks of the image encoder that were fine-tuned, the last ones."""
HEADS = 8
"""Of every attention layer of SD1.5."""
BLOCKS = [
    *((f"input_{1 + 3 * i + j}", f"down_blocks.{i}.attentions.{j}") for i in range(3) for j in range(2)),
    ("middle_0", "mid_block.attentions.0"),
    *((f"output_{3 * i + j}", f"up_blocks.{i}.attentions.{j}") for i in range(1, 4) for j in range(3)),
]
"""Transformer blocks of SD1.5 in execution order: the name in this project, and the file's."""


class FastComposerFile:
    """A file under the names of the published code, without the name of the model around them.

    Raises: StoredFileError when it is not a FastComposer model's, stating what was expected and found.
    """

    def __init__(self, stored: StoredFile):
        mark = f"{FUSION}mlp1.fc1.weight"
        prefix = next((name.removesuffix(mark) for name in stored.tensors if name.endswith(mark)), None)
        if prefix is None:
            raise StoredFileError(
                stored.path,
                f"is not a FastComposer model: it has no '{mark}', but {enumeration(stored.tensors)}. Use the pytorch_model.bin "
                "of mit-han-lab/fastcomposer, which contains U-Net, image encoder and post-fuse module.",
            )
        self.stored = stored
        self.sources = {name.removeprefix(prefix): name for name in stored.tensors}

    def error(self, problem: str) -> StoredFileError:
        return StoredFileError(self.stored.path, f"is a FastComposer model {problem}.")

    def size(self, name: str, dimensions: int = 1, axis: int = 0) -> int:
        """One dimension of a tensor.

        Raises: StoredFileError when that tensor is missing, has other dimensions, or an absurd width.
        """
        if name not in self.sources:
            raise self.error(f"that lacks '{name}': the file is incomplete; download it again")
        found = self.stored.shape(self.sources[name], dimensions)[axis]
        if found not in WIDTH:
            raise self.error(f"with the width {found} in '{name}'; at most {WIDTH.stop - 1} is read")
        return found


def layer_specs(file: FastComposerFile) -> Iterator[LayerSpec]:
    """All attention layers in execution order.

    Raises: StoredFileError when the U-Net is not SD1.5's.
    """
    there = {name.rpartition(".transformer_blocks.")[0] for name in file.sources if name.endswith(".attn2.to_q.weight")}
    strange = there - {UNET + theirs for _, theirs in BLOCKS}
    if strange or any(".transformer_blocks.1." in name for name in file.sources):
        raise file.error(
            f"whose U-Net is not SD1.5's: it has {len(there)} blocks with attention"
            + (f", one of them {printable(min(strange))}" if strange else ", some with several transformers")
            + f"; SD1.5 has {len(BLOCKS)} with one transformer each"
        )
    outermost = None
    for depth, (ours, theirs) in enumerate(BLOCKS):
        for which in ("attn1", "attn2"):
            keys = f"{UNET}{theirs}.transformer_blocks.0.{which}.to_k.weight"
            hidden, context = file.size(keys, 2, 0), file.size(keys, 2, 1)
            outermost = outermost or hidden
            stage, kind = ours.split("_")[0], "cross" if which == "attn2" else "self"
            yield LayerSpec(f"{ours}_0_{which}", stage, kind, depth, hidden, context, HEADS, hidden != outermost)


def adapter_config(file: FastComposerFile) -> MoAConfig:
    """What adapter these tensors make.

    Raises: StoredFileError as `FastComposerFile.size` and `layer_specs`, and when widths do not fit together.
    """
    config = MoAConfig(
        base="sd15",
        layers=tuple(layer_specs(file)),
        text_width=file.size(f"{FUSION}layer_norm.weight"),
        image_encoder=ENCODER,
        image_width=file.size(f"{PROJECTION}weight", 2),
        output_projection="own",
        router="none",
        fusion="fastcomposer",
        encoder_tail=TAIL,
        encoder_width=file.size(f"{VISION}post_layernorm.weight"),
    )
    problem = next(contradictions(config), None)
    if problem is not None:
        raise file.error(f"whose tensors do not fit together: {problem}")
    return config


def prefixes(file: FastComposerFile) -> Iterator[tuple[str, str]]:
    """Beginnings of the adapter's names with those of the file's, the more particular first."""
    blocks = {name.split(".")[4] for name in file.sources if name.startswith(f"{VISION}encoder.layers.")}
    first = max(0, len(blocks) - TAIL)
    yield from ((f"tail.layers.{i}.", f"{VISION}encoder.layers.{first + i}.") for i in range(TAIL))
    yield "tail.visual_projection.", PROJECTION
    yield "tail.", VISION
    yield "fusion.", FUSION
    for ours, theirs in BLOCKS:
        for which in ("attn1", "attn2"):
            to, of = f"layers.{ours}_0_{which}.", f"{UNET}{theirs}.transformer_blocks.0.{which}."
            yield f"{to}to_out.", f"{of}to_out.0."
            yield to, of


def plan_fastcomposer(stored: StoredFile, factory: Factory = PLAIN) -> Plan:
    """The adapter that a file's names and shapes describe, on the meta device.

    Raises: StoredFileError when it is none, of another base, or incomplete.
    """
    file = FastComposerFile(stored)
    config = adapter_config(file)
    adapter = MoAAdapter(config, replace(factory, device="meta"))
    pairs = list(prefixes(file))
    sources = {}
    for name in adapter.state_dict():
        ours, theirs = next(pair for pair in pairs if name.startswith(pair[0]))
        source = theirs + name.removeprefix(ours)
        if source not in file.sources:
            raise file.error(f"that lacks '{source}': the file is incomplete; download it again")
        sources[name] = file.sources[source]
    return Plan("a FastComposer model", adapter, sources, Header(config, LICENCE, {}))


def import_fastcomposer(stored: StoredFile, factory: Factory = PLAIN) -> MoAAdapter:
    """The adapter in FastComposer's file.

    Raises: StoredFileError as `plan_fastcomposer`, or when its tensors do not fit together.
    """
    adapter = load_planned(stored, plan_fastcomposer(stored, factory)).adapter
    assert isinstance(adapter, MoAAdapter)
    return adapter
