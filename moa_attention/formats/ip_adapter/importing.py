"""IP-Adapter files: recognised by the names and shapes of their tensors, never by the file's name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from torch import Tensor

from ...adapters.ip_adapter import ImagePromptAdapter
from ...adapters.projections import HEAD
from ...method.factory import Factory
from ...method.spec import LayerSpec, MoAConfig
from ..config import RANGES, WIDTH, contradictions
from ..errors import StoredFileError, enumeration, printable
from ..plan import Header, Plan
from ..tensors import StoredFile
from .kinds import KINDS, Kind, Shapes
from .names import LAYERS, PROJECTION, places, published_names

BASES: dict[int, Literal["sd15", "sdxl"]] = {16: "sd15", 70: "sdxl"}
"""By the number of cross-attention layers."""
NUMBERED = re.compile(re.escape(LAYERS) + r"(\d{1,4})\.(.+)", re.ASCII)
LOW_RANK = "low_rank."
"""Prefix of the adapter's low-rank differences inside a layer."""
LICENCE = "as its publisher states; the file itself states none"


def is_ip_adapter(names: Iterable[str]) -> bool:
    """Whether tensors of these names are an IP-Adapter's."""
    published = published_names(names)
    return all(any(name.startswith(part) for name in published) for part in (LAYERS, PROJECTION))


def flatten(content: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Names as in .safetensors files; .bin files nest them. Entries without a tensor, such as step counts, are left out."""
    flat: dict[str, Tensor] = {}
    for name, value in content.items():
        inner = value if isinstance(value, Mapping) else {}
        flat |= {f"{name}.{key}": tensor for key, tensor in inner.items() if isinstance(tensor, Tensor)}
        flat |= {str(name): value} if isinstance(value, Tensor) else {}
    return flat


class IPAdapterFile:
    """A file under the names of published files.

    Raises: StoredFileError when it is no IP-Adapter, or numbers its layers in another way.
    """

    def __init__(self, stored: StoredFile):
        self.stored, self.sources = stored, published_names(stored.tensors)
        if not is_ip_adapter(stored.tensors):
            found = enumeration(stored.tensors)
            raise StoredFileError(
                stored.path, f"is not an IP-Adapter: it has no '{PROJECTION}' and '{LAYERS}' tensors, but {found}."
            )
        strange = [name for name in self.sources if name.startswith(LAYERS) and not NUMBERED.fullmatch(name)]
        if strange:
            raise StoredFileError(
                stored.path,
                f"is an IP-Adapter whose layers are not numbered: '{printable(strange[0])}' instead of '{LAYERS}1.…'.",
            )

    def error(self, problem: str) -> StoredFileError:
        return StoredFileError(self.stored.path, f"is an IP-Adapter {problem}.")

    def size(self, name: str, axis: int) -> int:
        """A dimension of a matrix.

        Raises: StoredFileError when the matrix is missing, no matrix, or of an absurd width.
        """
        found = self.stored.shape(self.sources.get(name, name), 2)[axis]
        if found not in WIDTH:
            raise self.error(f"with the width {found} in '{name}'; at most {WIDTH.stop - 1} is read")
        return found

    def projection_shapes(self) -> Shapes:
        """Of the image projection's tensors."""
        return Shapes(
            {
                name.removeprefix(PROJECTION): tuple(self.stored.tensors[theirs].shape)
                for name, theirs in self.sources.items()
                if name.startswith(PROJECTION)
            }
        )

    def numbers(self, having: str) -> list[str]:
        """The numbers of the file's layers that have such a tensor, in their order."""
        matches = filter(None, map(NUMBERED.fullmatch, self.sources))
        return sorted({match[1] for match in matches if match[2].startswith(f"{having}.")}, key=int)


class FileKind(NamedTuple):
    """What an IP-Adapter file holds."""

    file: IPAdapterFile
    kind: Kind
    name: str
    """Shown to users: base, plus, full, faceid, faceid portrait, faceid plus, instantid."""
    base: Literal["sd15", "sdxl"]
    shapes: Shapes
    """Of the image projection."""
    text_width: int
    rank: int
    """Of the differences to the prior's projections; 0: there are none."""

    @property
    def tokens(self) -> int:
        """Image tokens of a subject; 0 when each patch becomes one."""
        return self.kind.tokens(self.shapes, self.text_width)


def recognise(stored: StoredFile) -> FileKind:
    """The kind of an IP-Adapter.

    Raises: StoredFileError when it is none, or of an unknown kind, stating what was found.
    """
    file = IPAdapterFile(stored)
    cross = file.numbers("to_k_ip")
    if len(cross) not in BASES:
        raise file.error(f"for {len(cross)} cross-attention layers; SD1.5 has 16 such layers, SDXL has 70")
    text_width = file.size(f"{LAYERS}{cross[0]}.to_k_ip.weight", 1)
    low_rank = f"{LAYERS}{cross[0]}.to_q_lora.down.weight"
    rank = file.size(low_rank, 0) if low_rank in file.sources else 0
    if rank not in RANGES["rank"]:
        raise file.error(f"with differences of rank {rank}; at most {RANGES['rank'].stop - 1} is read")
    shapes = file.projection_shapes()
    kind = next((kind for kind in KINDS if kind.recognises(shapes)), None)
    if kind is None:
        raise file.error(f"of an unknown kind: its image projection contains {enumeration(shapes, 6)}")
    name = "faceid" if kind.name == "faceid portrait" and rank else kind.name
    return FileKind(file, kind, name, BASES[len(cross)], shapes, text_width, rank)


def layer_specs(found: FileKind) -> dict[str, LayerSpec]:
    """The file's layers by their number in it.

    Raises: StoredFileError when only some self-attention layers have low-rank differences, or a matrix is missing.
    """
    file = found.file
    cross = file.numbers("to_k_ip")
    own = [key for key in file.numbers("to_q_lora") if key not in cross]
    if len(own) != (len(cross) if found.rank else 0):
        raise file.error(
            f"({found.name}) that is incomplete: it changes {len(own)} of {len(cross)} self-attention layers"
        )
    where = dict(zip(cross, places(found.base, "cross"), strict=True))
    where |= dict(zip(own, places(found.base, "self"), strict=False))
    order = sorted({place.execution_order for place in where.values()})
    widths = {key: file.size(f"{LAYERS}{key}.to_k_ip.weight", 0) for key in cross}
    widths |= {key: file.size(f"{LAYERS}{key}.to_q_lora.up.weight", 0) for key in own}
    outermost = min(widths.values())
    specs = {}
    for key, place in where.items():
        width, heads = widths[key], 8 if found.base == "sd15" else max(1, widths[key] // HEAD)
        specs[key] = LayerSpec(
            place.name, place.stage, place.kind, order.index(place.execution_order), width,
            found.text_width if place.kind == "cross" else width, heads, supervised=width != outermost,
        )  # fmt: skip
    return specs


def sources_of(file: IPAdapterFile, specs: Mapping[str, LayerSpec], names: Iterable[str]) -> dict[str, str]:
    """The adapter's names of tensors with the file's. Those that the adapter has no place for keep the published name."""
    numbers = {spec.name: number for number, spec in specs.items()}
    published = {ours: published_name(ours, numbers) for ours in names}
    used = set(published.values())
    rest = {name: theirs for name, theirs in file.sources.items() if name not in used}
    return {ours: file.sources.get(name, name) for ours, name in published.items()} | rest


def published_name(ours: str, numbers: Mapping[str, str]) -> str:
    """The published name of one of the adapter's tensors; `numbers` are the file's by layer name."""
    part, _, rest = ours.partition(".")
    if part == "projection":
        return PROJECTION + rest
    layer, _, rest = rest.partition(".")
    suffix = "lora" if rest.startswith(LOW_RANK) else "ip"
    matrix, _, rest = rest.removeprefix(LOW_RANK).partition(".")
    return f"{LAYERS}{numbers[layer]}.{matrix}_{suffix}.{rest}"


def plan_ip_adapter(stored: StoredFile, factory: Factory) -> Plan:
    """The adapter that a file's names and shapes describe, on the meta device.

    Raises: StoredFileError as `recognise`, and when the image projection is incomplete.
    """
    found = recognise(stored)
    specs = layer_specs(found)
    factory = replace(factory, device="meta")
    try:
        projection = found.kind.projection(found.shapes, found.text_width, factory)
        requires, encoder, tokens = found.kind.requires(found.shapes), found.kind.encoder(found.shapes), found.tokens
    except (LookupError, ValueError) as error:  # a shape that decides a size is missing, or has other dimensions
        raise found.file.error(f"({found.name}) with an incomplete image projection ({printable(error)})") from error
    ordered = tuple(sorted(specs.values(), key=lambda spec: (spec.depth, spec.is_cross)))
    config = MoAConfig(
        found.base, ordered, found.text_width, encoder, tokens * found.text_width, rank=found.rank, router="none"
    )
    problem = next(contradictions(config), None)
    if problem is not None:
        raise found.file.error(f"({found.name}) that no model fits: {problem}")
    provenance: dict[str, Any] = {
        "imported": f"IP-Adapter, kind {found.name}",
        "image tokens": tokens or "one for each patch",
        "router": "none of its own",
    }
    adapter = ImagePromptAdapter(config, projection, requires, factory)
    kind = f"an IP-Adapter ({found.name}, {found.base})"
    return Plan(kind, adapter, sources_of(found.file, specs, adapter.state_dict()), Header(config, LICENCE, provenance))
