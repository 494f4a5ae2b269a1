"""Captions, by a model of transformers from a local folder."""

from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from ..settings import check_model_folder

LONGEST = 40
"""Tokens of a caption."""


class Captioner:
    """An image-to-text model that needs no prompt: BLIP, BLIP-2, GIT and the like.

    Raises: SettingsError when the folder holds no such model.
    """

    def __init__(self, folder: str, device: torch.device):
        self.device = device
        check_model_folder("prepare.captioner", folder, "BLIP")
        self.processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        # Any: transformers' own types do not bind `to` and `generate` to this class.
        model: Any = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
        self.model: Any = model.to(device).eval()

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> str:
        """The caption of a picture, one line."""
        inputs = self.processor(images=image, return_tensors="pt").to(self.device)
        tokens = self.model.generate(**inputs, max_new_tokens=LONGEST)
        return " ".join(self.processor.batch_decode(tokens, skip_special_tokens=True)[0].split())
