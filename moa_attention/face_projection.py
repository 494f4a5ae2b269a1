"""From a face recogniser's embedding to image tokens: IP-Adapter's FaceID kinds (arXiv 2308.06721, later files).

Module names are those of the published files, so that these load strictly.
"""

from __future__ import annotations

from torch import Tensor, nn

from .projection import PatchReader, Place


class FaceProjection(nn.Module):
    """An embedding becomes a few tokens: "faceid" and "faceid portrait" files."""

    def __init__(self, face: int, inner: int, tokens: int, width: int, place: Place):
        super().__init__()
        make, options = place.operations, {"device": place.device, "dtype": place.dtype}
        self.width = width
        self.proj = nn.Sequential(
            make.Linear(face, inner, **options), nn.GELU(), make.Linear(inner, tokens * width, **options)
        )
        self.norm = make.LayerNorm(width, **options)

    def forward(self, face: Tensor) -> Tensor:
        """(B,F) -> (B,K,T)"""
        return self.norm(self.proj(face).unflatten(-1, (-1, self.width)))


class FacePlusProjection(FaceProjection):
    """These tokens then read what a CLIP vision model saw of the face: "faceid plus" files."""

    def __init__(
        self, face: int, inner: int, seen: int, depth: int, expansion: int, tokens: int, width: int, place: Place
    ):
        super().__init__(face, inner, tokens, width, place)
        self.perceiver_resampler = PatchReader(seen, width, depth, expansion, width, place)

    def forward(self, face: Tensor, patches: Tensor, shortcut: float = 1.0) -> Tensor:
        """(B,F) (B,P,G) -> (B,K,T)

        Args: shortcut: of the face's own tokens past the reading: 1 in version 2 of these files, 0 in version 1.
        """
        tokens = super().forward(face)
        return shortcut * tokens + self.perceiver_resampler.read(tokens, patches)
