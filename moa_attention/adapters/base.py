"""What every kind of adapter is: routed layers for a base model, and a way from pictures to a subject's feature."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..method.spec import MoAConfig
from ..run.step import Rows, Step

EncoderInput = Literal["pixels", "embedding", "patches", "hidden", "face", "raw_face"]
"""What an adapter encodes: a square picture in [0,1]; of a CLIP vision model the global embedding, the patches before the last
layer, or the hidden state before its last `encoder_tail` blocks; a face recogniser's embedding at length 1, or as it is."""
FACE_INPUTS: tuple[EncoderInput, ...] = ("face", "raw_face")
"""Those that are a face recogniser's."""


class Adapter(nn.Module):
    """All trained parts for one base model.

    A kind of adapter is a subclass in a file of its own; `formats/registry.py` connects it with its file format.
    """

    config: MoAConfig
    layers: nn.ModuleDict
    """A `RoutedLayer` by layer name."""
    encode_options: tuple[str, ...] = ()
    """Names of the options of `encode`."""
    separates_subjects: ClassVar[bool] = True
    """Whether a routed prompt itself determines which subject a pixel shows."""

    feature_is_tokens: ClassVar[bool] = False
    """Whether a feature consists of image tokens, each as wide as a text token."""

    @property
    @abstractmethod
    def requires(self) -> Mapping[EncoderInput, int]:
        """The inputs of `encode`, and how wide each is; for pixels the side of the picture."""

    @property
    def further_tokens(self) -> int:
        """The tokens of a subject beside the one in the place of its word; they have places after the prompt."""
        return 0

    @property
    @abstractmethod
    def subject_modules(self) -> Sequence[nn.Module]:
        """The parts of its file that lead from a picture to the subject's tokens, or to the text token in their place."""

    @property
    def has_routers(self) -> bool:
        """Whether the file brings routers."""
        return self.config.router != "none"

    @property
    def identity(self) -> str:
        """Names what a subject's feature means, so that those of two adapters do not mix: the CLIP vision model's name, and a
        hash of the file's own parts. Files with the same encoder and fusion share their subjects."""
        if not self.subject_modules:
            return self.config.image_encoder
        digest = hashlib.sha256()
        for module in self.subject_modules:
            for tensor in module.state_dict().values():
                digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return f"{self.config.image_encoder}:{digest.hexdigest()[:12]}"

    @abstractmethod
    def encode(self, inputs: Mapping[EncoderInput, Tensor], **options: Any) -> Tensor:
        """Features of K pictures, (K,F), from the inputs in `requires`."""

    @abstractmethod
    def begin(
        self,
        context: Tensor,
        t: Tensor,
        slots: Tensor,
        features: Tensor,
        rows: Rows,
        prior_bias: Tensor,
        weights: Tensor | None = None,
    ) -> Step:
        """Prepare one U-Net call.

        Args:
            context: (B,M,T) text embedding of the call.
            t: (B,) timesteps.
            slots: (B,M) int64, 0 for an ordinary token, s for subject s; with `further_tokens` (B,M') of `with_further_places`.
            features: (B,S,F) features of `encode`.
            rows: those with a subject, R of them.
            prior_bias: () float32.
            weights: (R,S), how much of each subject's token takes the place of its word; None: all (ours).
        """
