"""IP-Adapter files (arXiv 2308.06721): told by the names and shapes of their tensors, never by the file's name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Literal, NamedTuple

from torch import Tensor, nn

from ..checkpoint import AdapterFileError
from ..config import LayerSpec, MoAConfig
from ..expert import Projections
from ..face_projection import FacePlusProjection, FaceProjection
from ..image_prompt import ImagePromptAdapter, Sees
from ..projection import HEAD, LinearProjection, PatchProjection, Place, Resampler
from .file_order import in_order, places

Flat = Mapping[str, Tensor]
PROJECTION, LAYERS = "image_proj.", "ip_adapter."
ENCODERS = {
    ("embedding", 1024): "CLIP-ViT-H-14", ("embedding", 1280): "CLIP-ViT-bigG-14", ("embedding", 768): "clip-vit-large-patch14",
    ("patches", 1280): "CLIP-ViT-H-14", ("patches", 1664): "CLIP-ViT-bigG-14", ("patches", 1024): "clip-vit-large-patch14",
}  # fmt: skip
"""Which CLIP vision model's global embedding, or patches before the last layer, are so wide."""
RECOGNISER = "a face embedding (InsightFace's, 512 wide)"
BASES: dict[int, Literal["sd15", "sdxl"]] = {16: "sd15", 70: "sdxl"}
"""By the number of cross-attention layers."""


class Kind(NamedTuple):
    """What a file turned out to be."""

    name: str
    """For people: base, plus, full, faceid, faceid portrait, faceid plus."""
    base: Literal["sd15", "sdxl"]
    sees: dict[Sees, int]
    """What it sees, and how wide that is."""
    tokens: int
    """Image tokens of a subject; 0 when each patch becomes one."""
    text_width: int
    rank: int
    """Of its differences to the prior's projections; 0: it leaves them alone."""

    @property
    def encoder(self) -> str:
        """Names of what it sees through."""
        named = [ENCODERS.get((name, width), f"a CLIP vision model with {name} {width} wide")
                 for name, width in self.sees.items() if name != "face"]  # fmt: skip
        return " and ".join([RECOGNISER] * ("face" in self.sees) + named)


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

    Raises: AdapterFileError when it is none, or of an unknown kind, saying what was found.
    """
    if not is_ip_adapter(tensors):
        found = ", ".join(sorted(tensors)[:3]) or "nothing"
        raise AdapterFileError(f"Not an IP-Adapter: no '{PROJECTION}' and '{LAYERS}' tensors, but {found} ...")
    keys = layer_keys(tensors, "to_k_ip")
    text_width = tensors[f"{LAYERS}{keys[0]}.to_k_ip.weight"].shape[1]
    if len(keys) not in BASES:
        raise AdapterFileError(
            f"An IP-Adapter for {len(keys)} cross-attention layers and text {text_width} wide; SD1.5 has 16, SDXL 70."
        )
    difference = tensors.get(f"{LAYERS}{keys[0]}.to_q_lora.down.weight")
    rank = 0 if difference is None else difference.shape[0]
    name, sees, tokens = read_projection(tensors, text_width, rank)
    return Kind(name, BASES[len(keys)], sees, tokens, text_width, rank)


def read_projection(tensors: Flat, text_width: int, rank: int) -> tuple[str, dict[Sees, int], int]:
    """Name, what is seen and how wide that is, and the number of image tokens, from the image projection's tensors.

    Raises: AdapterFileError for unknown kinds.
    """
    shapes = {k.removeprefix(PROJECTION): tuple(t.shape) for k, t in tensors.items() if k.startswith(PROJECTION)}
    if "latents" in shapes and "proj_in.weight" in shapes:
        return "plus", {"patches": shapes["proj_in.weight"][1]}, shapes["latents"][1]
    if "proj.weight" in shapes and "norm.weight" in shapes:
        wide, width = shapes["proj.weight"]
        return "base", {"embedding": width}, wide // text_width
    if "proj.0.weight" in shapes and "proj.3.weight" in shapes:
        return "full", {"patches": shapes["proj.0.weight"][1]}, 0
    if "proj.0.weight" in shapes and "proj.2.weight" in shapes and "norm.weight" in shapes:
        face: dict[Sees, int] = {"face": shapes["proj.0.weight"][1]}
        tokens = shapes["proj.2.weight"][0] // text_width
        if "perceiver_resampler.proj_in.weight" in shapes:
            return "faceid plus", {**face, "patches": shapes["perceiver_resampler.proj_in.weight"][1]}, tokens
        return "faceid" if rank else "faceid portrait", face, tokens
    raise AdapterFileError(
        f"An IP-Adapter of an unknown kind: its image projection holds {', '.join(sorted(shapes)[:6])} ..."
    )


def layer_keys(tensors: Flat, having: str) -> list[str]:
    """The numbers of the file's layers that have such a tensor, in their order."""
    return sorted({k.split(".")[1] for k in tensors if k.startswith(LAYERS) and f".{having}." in k}, key=int)


def layer_specs(tensors: Flat, kind: Kind) -> dict[str, LayerSpec]:
    """The file's layers by their number in it.

    Raises: AdapterFileError when only some self-attention layers have something of their own.
    """
    cross = layer_keys(tensors, "to_k_ip")
    tuned = [key for key in layer_keys(tensors, "to_q_lora") if key not in cross]
    if len(tuned) != (len(cross) if kind.rank else 0):
        raise AdapterFileError(f"An IP-Adapter ({kind.name}) that tunes {len(tuned)} of {len(cross)} self-attentions.")
    names = dict(zip(cross, places(kind.base, "attn2"), strict=True))
    names |= dict(zip(tuned, places(kind.base, "attn1"), strict=False))
    depths = {place: depth for depth, place in enumerate(sorted({in_order(name) for name in names.values()}))}
    widths = {key: tensors[f"{LAYERS}{key}.to_k_ip.weight"].shape[0] for key in cross}
    widths |= {key: tensors[f"{LAYERS}{key}.to_q_lora.up.weight"].shape[0] for key in tuned}
    outermost = min(widths.values())
    specs = {}
    for key, name in names.items():
        width, heads = widths[key], 8 if kind.base == "sd15" else widths[key] // HEAD
        context = kind.text_width if key in cross else width
        specs[key] = LayerSpec(name, depths[in_order(name)], width, context, heads, width != outermost)
    return specs


def make_projection(tensors: Flat, kind: Kind, place: Place) -> nn.Module:
    """The image projection that these tensors fit into."""

    def size(name: str, axis: int) -> int:
        return tensors[PROJECTION + name].shape[axis]

    seen, text = list(kind.sees.values())[-1], kind.text_width
    if kind.name == "base":
        return LinearProjection(seen, kind.tokens, text, place)
    if kind.name == "full":
        return PatchProjection(seen, size("proj.0.weight", 0), text, place)
    if kind.name in ("faceid", "faceid portrait"):
        return FaceProjection(seen, size("proj.0.weight", 0), kind.tokens, text, place)
    reader = "perceiver_resampler." if kind.name == "faceid plus" else ""
    inner = size(f"{reader}proj_in.weight", 0)
    expansion = size(f"{reader}layers.0.1.1.weight", 0) // inner
    layers = f"{PROJECTION}{reader}layers."
    depth = len({key.removeprefix(layers).split(".")[0] for key in tensors if key.startswith(layers)})
    if kind.name == "plus":
        return Resampler(seen, kind.tokens, inner, depth, expansion, text, place)
    return FacePlusProjection(
        kind.sees["face"], size("proj.0.weight", 0), seen, depth, expansion, kind.tokens, text, place
    )


def renamed(tensors: Flat, specs: Mapping[str, LayerSpec], kind: Kind) -> dict[str, Tensor]:
    """The file's tensors under the adapter's names.

    Raises: KeyError naming what is missing.
    """
    ours = {f"projection.{k.removeprefix(PROJECTION)}": t for k, t in tensors.items() if k.startswith(PROJECTION)}
    for key, spec in specs.items():
        names = {f"{half}.weight": f"{half}_ip.weight" for half in ("to_k", "to_v") if spec.is_cross}
        if kind.rank:
            names |= {f"tuned.{to}.{half}.weight": f"{to}_lora.{half}.weight"
                      for to in Projections._fields for half in ("down", "up")}  # fmt: skip
        ours |= {f"layers.{spec.name}.{our}": tensors[f"{LAYERS}{key}.{their}"] for our, their in names.items()}
    return ours


def import_ip_adapter(tensors: Flat, operations: ModuleType | type = nn) -> tuple[ImagePromptAdapter, Kind]:
    """Build the adapter from a file's tensors, which it keeps instead of copying.

    Raises: AdapterFileError as `recognise`, and when tensors are missing or do not fit together.
    """
    kind = recognise(tensors)
    specs = layer_specs(tensors, kind)
    ordered = tuple(sorted(specs.values(), key=lambda spec: (spec.depth, spec.is_cross)))
    width = kind.tokens * kind.text_width
    config = MoAConfig(kind.base, ordered, kind.text_width, kind.encoder, width, rank=kind.rank, router="none")
    place = Place(operations, "meta", next(iter(tensors.values())).dtype)
    try:
        adapter = ImagePromptAdapter(config, make_projection(tensors, kind, place), kind.sees, place)
        adapter.load_state_dict(renamed(tensors, specs, kind), strict=True, assign=True)
    except (KeyError, RuntimeError) as error:
        raise AdapterFileError(f"An IP-Adapter ({kind.name}, {kind.base}) whose tensors do not fit: {error}") from error
    return adapter.eval().requires_grad_(False), kind
