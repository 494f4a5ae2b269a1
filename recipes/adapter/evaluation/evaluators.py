"""The models that measure the pictures of an evaluation: CLIP, faces, a segmenter. Each may be missing."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ....moa_attention.pictures import smooth_to, to_mask
from ....moa_attention.subjects.reference import bounding_box
from ..preparation.segment import Segmenter, open_segmenter
from ..settings import EvaluationSettings, Settings, SettingsError, check_model_folder
from .faces import FaceEvaluator
from .people import Person

MAP_THRESHOLD = 0.5
"""Share of its own range above which the router's map counts as a subject, as in the node Visualize MoA Router."""


class ClipEvaluator:
    """Embeddings of text and pictures in one space (`CLIPModel` of transformers).

    Args: folder: as `save_pretrained` writes it; nothing is fetched.
    Raises: SettingsError when it holds no such model.
    """

    def __init__(self, folder: Path, device: torch.device):
        from transformers import CLIPModel, CLIPProcessor

        check_model_folder("evaluation.clip", str(folder), "clip-vit-large-patch14")
        try:
            self.model = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
            nn.Module.to(self.model, device)
            self.processor = CLIPProcessor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(f"evaluation.clip: {folder.resolve()} cannot be loaded: {error}") from error
        self.device = device
        self.text = cache(self.embed_text)

    @torch.no_grad()
    def embed_text(self, text: str) -> Tensor:
        """-> (E,)"""
        longest = self.model.text_model.embeddings.position_embedding.num_embeddings
        tokens = self.processor.tokenizer(text, truncation=True, max_length=longest, return_tensors="pt")
        tokens = tokens.to(self.device)
        return self.model.text_projection(self.model.text_model(**tokens).pooler_output)[0].float().cpu()

    @torch.no_grad()
    def picture(self, picture: Tensor) -> Tensor:
        """(3,H,W) in [0,1] -> (E,)"""
        pixels = self.processor.image_processor(picture, do_rescale=False, return_tensors="pt")["pixel_values"]
        return (
            self.model.visual_projection(self.model.vision_model(pixels.to(self.device)).pooler_output)[0].float().cpu()
        )


@dataclass(frozen=True)
class Evaluators:
    """The models that the settings name."""

    clip: ClipEvaluator | None = None
    face: FaceEvaluator | None = None
    segment: Segmenter | None = None

    def subjects(self, picture: Tensor, router_map: Tensor) -> Tensor:
        """The subjects' region by the segmenter; without one, where the router's map is in the upper half of its range.

        Args: picture (3,H,W), router_map (h,w). Returns: (H,W) bool.
        """
        size = (picture.shape[-2], picture.shape[-1])
        if self.segment is None:
            return to_mask(smooth_to(router_map, size), MAP_THRESHOLD) > 0
        masks = self.segment(Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy()))
        return (torch.stack(masks) > 0.5).any(dim=0) if masks else torch.zeros(size, dtype=torch.bool)


def load_evaluators(settings: Settings, wanted: EvaluationSettings, device: torch.device) -> Evaluators:
    """Load the models that the settings name.

    Raises: SettingsError when one does not exist.
    """
    try:
        face = FaceEvaluator(Path(wanted.face), device) if wanted.face else None
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"evaluation.face: {error}") from error
    clip = ClipEvaluator(Path(wanted.clip), device) if wanted.clip else None
    return Evaluators(clip, face, open_segmenter(settings.prepare, device) if wanted.regions == "segmenter" else None)


@dataclass(frozen=True)
class ReferenceEmbeddings:
    """Embeddings of a subject's own pictures; None without an evaluator, or without a face."""

    face: Tensor | None
    """(128,), the largest face of the reference."""
    other_face: Tensor | None
    clip_embedding: Tensor | None
    """(E,), CLIP of the reference, cropped to its mask."""
    other_clip_embedding: Tensor | None


def embed_references(evaluators: Evaluators, person: Person) -> ReferenceEmbeddings:
    """Embed the reference and the other picture of a subject."""

    def face(picture: Tensor | None) -> Tensor | None:
        found = evaluators.face(picture) if evaluators.face and picture is not None else None
        return found[0] if found is not None and len(found) else None

    def clip(picture: Tensor | None) -> Tensor | None:
        return evaluators.clip.picture(picture) if evaluators.clip and picture is not None else None

    shown = person.picture if person.mask is None else crop_to_region(person.picture, person.mask > 0.5)
    return ReferenceEmbeddings(face(person.picture), face(person.other), clip(shown), clip(person.other))


def crop_to_region(picture: Tensor, region: Tensor) -> Tensor:
    """The part of a picture around a region; all of it when the region is empty. (3,H,W) (H,W) bool -> (3,h,w)"""
    if not region.any():
        return picture
    rows, columns = bounding_box(region.float())
    return picture[:, rows, columns]
