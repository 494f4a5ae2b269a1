"""IP-Adapter files (arXiv 2308.06721): told by the names and shapes of their tensors, never by the file's name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Literal, NamedTuple

from torch import Tensor, nn

from ..checkpoint import AdapterFileError
from ..config import LayerSpec, MoAConfig
from ..image_prompt import ImagePromptAdapter, Sees
from ..projection import HEAD, LinearProjection, PatchProjection, Place, Resampler

Flat = Mapping[str, Tensor]
PROJECTION, LAYERS = "image_proj.", "ip_adapter."
ENCODERS = {
    ("embedding", 1024): "CLIP-ViT-H-14", ("embedding", 1280): "CLIP-ViT-bigG-14", ("embedding", 768): "clip-vit-large-patch14",
    ("patches", 1280): "CLIP-ViT-H-14", ("patches", 1664): "CLIP-ViT-bigG-14", ("patches", 1024): "clip-vit-large-patch14",
}  # fmt: skip
"""Which CLIP vision model's global embedding, or patches before the last layer, are so wide."""
SD15 = [*(("input", n, 1) for n in (1, 2, 4, 5, 7, 8)), *(("output", n, 1) for n in range(3, 12)), ("middle", 0, 1)]
SDXL = [
    ("input", 4, 2), ("input", 5, 2), ("input", 7, 10), ("input", 8, 10), *(("output", n, 10) for n in range(3)),
    *(("output", n, 2) for n in range(3, 6)), ("middle", 0, 10),
]  # fmt: skip
"""(stage, block, transformers) in the order in which the published files count layers: the middle block comes last."""
STAGES = ("input", "middle", "output")


class Kind(NamedTuple):
    """What a file turned out to be."""

    name: str
    """For people: base, plus, full."""
    base: Literal["sd15", "sdxl"]
    sees: Sees
    width: int
    """Of what it sees."""
    encoder: str
    """Name of that CLIP vision model."""
    tokens: int
    """Image tokens of a subject; 0 when each patch becomes one."""
    text_width: int


def is_ip_adapter(names: Iterable[str]) -> bool:
    """Whether tensors of these names are an IP-Adapter's."""
    names = list(names)
    return any(name.startswith(LAYERS) for name in names) and any(name.startswith(PROJECTION) for name in names)


def flatten(content: Mapping[str, Tensor | Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Names as in .safetensors files; .bin files nest them."""
    flat: dict[str, Tensor] = {}
    for name, value in content.items():
        flat |= {name: value} if isinstance(value, Tensor) else {f"{name}.{key}": t for key, t in value.items()}
    return flat


def recognise(tensors: Flat) -> Kind:
    """What kind of IP-Adapter this is.

    Raises: AdapterFileError when it is none, or a kind that cannot be used here, saying what was found.
    """
    if not is_ip_adapter(tensors):
        found = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise AdapterFileError(f"Not an IP-Adapter: no '{PROJECTION}' and '{LAYERS}' tensors, but {found} ...")
    keys = layer_keys(tensors)
    text_width = tensors[f"{LAYERS}{keys[0]}.to_k_ip.weight"].shape[1]
    base = "sd15" if len(keys) == 16 else "sdxl"
    if len(keys) not in (16, 70):
        raise AdapterFileError(
            f"An IP-Adapter for {len(keys)} cross-attention layers and text {text_width} wide; SD1.5 has 16, SDXL 70."
        )
    name, sees, width, tokens = read_projection(tensors, text_width)
    encoder = ENCODERS.get((sees, width), f"a CLIP vision model with {sees} {width} wide")
    return Kind(name, base, sees, width, encoder, tokens, text_width)


def read_projection(tensors: Flat, text_width: int) -> tuple[str, Sees, int, int]:
    """Name, what is seen, how wide that is, and the number of image tokens, from the image projection's tensors.

    Raises: AdapterFileError for kinds that need a face embedding, and for unknown ones.
    """
    shapes = {k.removeprefix(PROJECTION): tuple(t.shape) for k, t in tensors.items() if k.startswith(PROJECTION)}
    if "latents" in shapes and "proj_in.weight" in shapes:
        return "plus", "patches", shapes["proj_in.weight"][1], shapes["latents"][1]
    if "proj.weight" in shapes and "norm.weight" in shapes:
        wide, width = shapes["proj.weight"]
        return "base", "embedding", width, wide // text_width
    if "proj.0.weight" in shapes and "proj.3.weight" in shapes:
        return "full", "patches", shapes["proj.0.weight"][1], 0
    if "perceiver_resampler.proj_in.weight" in shapes or "proj.2.weight" in shapes:
        raise AdapterFileError(
            "A FaceID kind of IP-Adapter: it sees through a face embedding, which is not supported yet. Use a base, plus, "
            "plus-face or full-face file."
        )
    raise AdapterFileError(
        f"An IP-Adapter of an unknown kind: its image projection holds {', '.join(sorted(shapes)[:6])} ..."
    )


def layer_keys(tensors: Flat) -> list[str]:
    """The numbers of the file's layers, in their order."""
    return sorted({k.split(".")[1] for k in tensors if k.startswith(LAYERS) and ".to_k_ip." in k}, key=int)


def places(base: str) -> Iterator[str]:
    """Names of the cross-attention layers in the file's order."""
    for stage, block, transformers in SD15 if base == "sd15" else SDXL:
        yield from (f"{stage}_{block}_{j}_attn2" for j in range(transformers))


def in_order(name: str) -> tuple[int, int, int]:
    """Sorts layer names as the U-Net executes them."""
    stage, block, transformer, _ = name.split("_")
    return STAGES.index(stage), int(block), int(transformer)


def layer_specs(tensors: Flat, kind: Kind) -> dict[str, LayerSpec]:
    """The file's layers by their number in it."""
    keys = layer_keys(tensors)
    names = dict(zip(keys, places(kind.base), strict=True))
    depths = {name: depth for depth, name in enumerate(sorted(names.values(), key=in_order))}
    widths = {key: tensors[f"{LAYERS}{key}.to_k_ip.weight"].shape[0] for key in keys}
    outermost = min(widths.values())
    specs = {}
    for key, name in names.items():
        heads = 8 if kind.base == "sd15" else widths[key] // HEAD
        specs[key] = LayerSpec(name, depths[name], widths[key], kind.text_width, heads, widths[key] != outermost)
    return specs


def make_projection(tensors: Flat, kind: Kind, place: Place) -> nn.Module:
    """The image projection that these tensors fit into."""

    def size(name: str, axis: int) -> int:
        return tensors[PROJECTION + name].shape[axis]

    if kind.name == "base":
        return LinearProjection(kind.width, kind.tokens, kind.text_width, place)
    if kind.name == "full":
        return PatchProjection(kind.width, size("proj.0.weight", 0), kind.text_width, place)
    inner, expansion = size("latents", 2), size("layers.0.1.1.weight", 0) // size("latents", 2)
    depth = len({key.split(".")[2] for key in tensors if key.startswith(f"{PROJECTION}layers.")})
    return Resampler(kind.width, kind.tokens, inner, depth, expansion, kind.text_width, place)


def import_ip_adapter(tensors: Flat, operations: ModuleType | type = nn) -> tuple[ImagePromptAdapter, Kind]:
    """Build the adapter from a file's tensors, which it keeps instead of copying.

    Raises: AdapterFileError as `recognise`, and when tensors are missing or do not fit together.
    """
    kind = recognise(tensors)
    specs = layer_specs(tensors, kind)
    ordered = tuple(sorted(specs.values(), key=lambda spec: spec.depth))
    config = MoAConfig(kind.base, ordered, kind.text_width, kind.encoder, kind.tokens * kind.text_width)
    dtype = next(iter(tensors.values())).dtype
    place = Place(operations, "meta", dtype)
    adapter = ImagePromptAdapter(config, make_projection(tensors, kind, place), kind.sees, kind.width, place)
    renamed = {f"projection.{k.removeprefix(PROJECTION)}": t for k, t in tensors.items() if k.startswith(PROJECTION)}
    try:
        for key, spec in specs.items():
            for half in ("to_k", "to_v"):
                renamed[f"layers.{spec.name}.{half}.weight"] = tensors[f"{LAYERS}{key}.{half}_ip.weight"]
        adapter.load_state_dict(renamed, strict=True, assign=True)
    except (KeyError, RuntimeError) as error:
        raise AdapterFileError(f"An IP-Adapter ({kind.name}, {kind.base}) whose tensors do not fit: {error}") from error
    return adapter.eval().requires_grad_(False), kind
