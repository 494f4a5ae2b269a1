"""Matching silhouettes with the words of the caption."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from transformers import CLIPModel, CLIPProcessor

from ..settings import check_model_folder

Matching = Callable[[Image.Image, Sequence[str], Sequence[Tensor]], list[tuple[int, int]]]
"""A picture, words, and masks (H,W) from left to right -> (word, mask) pairs in the order of the words."""


def left_to_right(_image: Image.Image, words: Sequence[str], masks: Sequence[Tensor]) -> list[tuple[int, int]]:
    """The first word of a caption is the subject on the left, as in most captions."""
    return [(n, n) for n in range(min(len(words), len(masks)))]


class ClipMatching:
    """Compares silhouettes with words through a CLIP model of transformers from a local folder.

    Raises: SettingsError when there is none.
    """

    def __init__(self, folder: str, device: torch.device):
        self.device = device
        check_model_folder("prepare.clip", folder, "CLIP ViT-L/14")
        self.clip = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        nn.Module.to(self.clip, device)
        self.processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)

    @torch.no_grad()
    def __call__(self, image: Image.Image, words: Sequence[str], masks: Sequence[Tensor]) -> list[tuple[int, int]]:
        """The pairs (word, mask) that are most alike together, in the order of the words."""
        texts = [f"a photo of a {word}" for word in words]
        inputs = self.processor(
            text=texts, images=[cropped(image, m) for m in masks], return_tensors="pt", padding=True
        )
        alike = self.clip(**inputs.to(self.device)).logits_per_text.softmax(dim=0).cpu().numpy()
        apart = np.abs(np.arange(len(words))[:, None] - np.arange(len(masks)))
        rows, columns = linear_sum_assignment(alike - 1e-3 * apart, maximize=True)  # two men: from left to right
        return list(zip(rows.tolist(), columns.tolist(), strict=True))


def cropped(image: Image.Image, mask: Tensor) -> Image.Image:
    """One subject, cropped, on grey."""
    soft = Image.fromarray((mask * 255).round().byte().numpy())
    return Image.composite(image, Image.new("RGB", image.size, (127, 127, 127)), soft).crop(soft.getbbox())
