"""The kinds of image projection in IP-Adapter files, one table entry each."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import nn

from ...adapters.base import EncoderInput
from ...adapters.projections import (
    HEAD,
    FacePlusProjection,
    FaceProjection,
    FaceResampler,
    LinearProjection,
    PatchProjection,
    Resampler,
)
from ...method.factory import Factory

BIG_G = "CLIP-ViT-bigG-14"
ENCODERS = {
    ("embedding", 1024): "CLIP-ViT-H-14", ("embedding", 1280): BIG_G, ("embedding", 768): "clip-vit-large-patch14",
    ("patches", 1280): "CLIP-ViT-H-14", ("patches", 1664): BIG_G, ("patches", 1024): "clip-vit-large-patch14",
}  # fmt: skip
"""The CLIP vision model whose global embedding, or patches before the last layer, are so wide."""
FACE = 512
"""Width of a face embedding."""
RECOGNISERS = {
    "face": f"a face embedding (InsightFace's, {FACE} wide)",
    "raw_face": f"a face embedding that is not normalised (InsightFace's, {FACE} wide)",
}
"""By input."""
READER = "perceiver_resampler."
"""Prefix of the resampler inside the projection of "faceid plus" files."""


class Shapes(dict[str, tuple[int, ...]]):
    """Shapes of an image projection's tensors by name."""

    def inner(self, prefix: str = "") -> tuple[int, int, int]:
        """Inner width, depth and expansion of a resampler.

        Raises: LookupError and ValueError when shapes are missing, or its heads do not divide the width.
        """
        width, _ = self[f"{prefix}proj_in.weight"]
        if width % HEAD:
            raise ValueError(f"{width} wide, which heads of {HEAD} do not divide")
        layers = f"{prefix}layers."
        depth = len({name.removeprefix(layers).split(".")[0] for name in self if name.startswith(layers)})
        return width, depth, self[f"{layers}0.1.1.weight"][0] // width


class Kind(NamedTuple):
    """One kind of image projection."""

    name: str
    marks: tuple[str, ...]
    """Names of tensors by which it is recognised, together with its place in the table."""
    requires: Callable[[Shapes], dict[EncoderInput, int]]
    """Its inputs and their widths."""
    tokens: Callable[[Shapes, int], int]
    """Image tokens of a subject, from the shapes and the text width; 0 when each patch becomes one."""
    projection: Callable[[Shapes, int, Factory], nn.Module]
    """The module that these tensors fit into, from the shapes and the text width."""
    patch_width: int = 0
    """Width of what its resampler reads, where another kind has the same tensors; 0: any."""

    def recognises(self, shapes: Shapes) -> bool:
        """Whether these are the tensors of this kind."""
        marked = all(mark in shapes for mark in self.marks)
        return marked and self.patch_width in (0, *shapes.get("proj_in.weight", ())[1:])

    def encoder(self, shapes: Shapes) -> str:
        """Names of the encoders it needs."""
        widths = self.requires(shapes)
        clip = [ENCODERS.get((name, width), f"a CLIP vision model with {name} {width} wide")
                for name, width in widths.items() if name not in RECOGNISERS]  # fmt: skip
        return " and ".join([RECOGNISERS[name] for name in widths if name in RECOGNISERS] + clip)


def resampler(shapes: Shapes, text: int, factory: Factory) -> nn.Module:
    width, depth, expansion = shapes.inner()
    tokens, features = shapes["latents"][1], shapes["proj_in.weight"][1]
    return Resampler(features, tokens, width, depth, expansion, text, factory)


def face_resampler(shapes: Shapes, text: int, factory: Factory) -> nn.Module:
    width, depth, expansion = shapes.inner()
    return FaceResampler(FACE, shapes["latents"][1], width, depth, expansion, text, factory)


def face(shapes: Shapes, text: int, factory: Factory) -> nn.Module:
    inner, width = shapes["proj.0.weight"]
    return FaceProjection(width, inner, face_tokens(shapes, text), text, factory)


def face_plus(shapes: Shapes, text: int, factory: Factory) -> nn.Module:
    (inner, width), (_, depth, expansion) = shapes["proj.0.weight"], shapes.inner(READER)
    features = shapes[f"{READER}proj_in.weight"][1]
    return FacePlusProjection(width, inner, features, depth, expansion, face_tokens(shapes, text), text, factory)


def face_tokens(shapes: Shapes, text: int) -> int:
    return shapes["proj.2.weight"][0] // text


KINDS = (
    Kind(
        "instantid", ("latents", "proj_in.weight"), lambda s: {"raw_face": s["proj_in.weight"][1]},
        lambda s, text: s["latents"][1], face_resampler, patch_width=FACE,
    ),
    Kind(
        "plus", ("latents", "proj_in.weight"), lambda s: {"patches": s["proj_in.weight"][1]},
        lambda s, text: s["latents"][1], resampler,
    ),
    Kind(
        "base", ("proj.weight", "norm.weight"), lambda s: {"embedding": s["proj.weight"][1]},
        lambda s, text: s["proj.weight"][0] // text,
        lambda s, text, factory: LinearProjection(s["proj.weight"][1], s["proj.weight"][0] // text, text, factory),
    ),
    Kind(
        "full", ("proj.0.weight", "proj.3.weight"), lambda s: {"patches": s["proj.0.weight"][1]},
        lambda s, text: 0,
        lambda s, text, factory: PatchProjection(s["proj.0.weight"][1], s["proj.0.weight"][0], text, factory),
    ),
    Kind(
        "faceid plus", ("proj.0.weight", "proj.2.weight", "norm.weight", f"{READER}proj_in.weight"),
        lambda s: {"face": s["proj.0.weight"][1], "patches": s[f"{READER}proj_in.weight"][1]}, face_tokens, face_plus,
    ),
    Kind(
        "faceid portrait", ("proj.0.weight", "proj.2.weight", "norm.weight"),
        lambda s: {"face": s["proj.0.weight"][1]}, face_tokens, face,
    ),
)  # fmt: skip
"""In the order in which they are tried. "faceid portrait" files with low-rank differences are "faceid" files."""
