"""Who judges the pictures of an evaluation: CLIP, faces, a segmenter. Each may be missing."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ....moa_attention.picture import smooth_to
from ....moa_attention.reference import bounding_box
from ....nodes.visualize import to_mask
from ..preparation.segment import Segmenter, open_segmenter
from ..settings import Evaluation, Settings, SettingsError, check_model_folder
from .faces import FaceJudge
from .people import Person

SPOKEN = 0.5
"""Share of its own range above which the router's map counts as a subject, as in the node Visualize MoA Router."""


class ClipJudge:
    """Text and pictures in one space (`CLIPModel` of transformers).

    Args: folder: as `save_pretrained` writes it; nothing is fetched.
    Raises: SettingsError when it holds no such model.
    """

    def __init__(self, folder: Path, device: torch.device):
        from transformers import CLIPModel, CLIPProcessor

        check_model_folder("evaluation.clip", str(folder), "clip-vit-large-patch14")
        try:
            self.model = (
                CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval().to(device)
            )
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
class Judges:
    """Those there are."""

    clip: ClipJudge | None = None
    face: FaceJudge | None = None
    segment: Segmenter | None = None

    def subjects(self, picture: Tensor, spoke: Tensor) -> Tensor:
        """Where the subjects are: by the segmenter, without one where the router's map is in the upper half of its range.

        Args: picture (3,H,W), spoke (h,w). Returns: (H,W) bool.
        """
        size = (picture.shape[-2], picture.shape[-1])
        if self.segment is None:
            return to_mask(smooth_to(spoke, size), SPOKEN) > 0
        masks = self.segment(Image.fromarray((picture.movedim(0, -1) * 255).round().byte().numpy()))
        return (torch.stack(masks) > 0.5).any(dim=0) if masks else torch.zeros(size, dtype=torch.bool)


def open_judges(settings: Settings, wanted: Evaluation, device: torch.device) -> Judges:
    """Load those the settings name.

    Raises: SettingsError when one is not there.
    """
    try:
        face = FaceJudge(Path(wanted.face), device) if wanted.face else None
    except (OSError, ValueError, KeyError) as error:
        raise SettingsError(f"evaluation.face: {error}") from error
    clip = ClipJudge(Path(wanted.clip), device) if wanted.clip else None
    return Judges(clip, face, open_segmenter(settings.prepare, device) if wanted.regions == "segmenter" else None)


@dataclass(frozen=True)
class Known:
    """What the judges know of a subject from its own pictures; None where they know nothing."""

    face: Tensor | None
    """(128,), of the reference's largest face."""
    other_face: Tensor | None
    look: Tensor | None
    """(E,), CLIP of the reference, cropped to its mask."""
    other_look: Tensor | None


def meet(judges: Judges, person: Person) -> Known:
    """Look at the reference and at the other picture."""

    def face(picture: Tensor | None) -> Tensor | None:
        found = judges.face(picture) if judges.face and picture is not None else ()
        return found[0] if len(found) else None

    def look(picture: Tensor | None) -> Tensor | None:
        return judges.clip.picture(picture) if judges.clip and picture is not None else None

    shown = person.picture if person.mask is None else crop(person.picture, person.mask > 0.5)
    return Known(face(person.picture), face(person.other), look(shown), look(person.other))


def crop(picture: Tensor, region: Tensor) -> Tensor:
    """The part of a picture around a region; all of it when the region is empty. (3,H,W) (H,W) bool -> (3,h,w)"""
    if not region.any():
        return picture
    rows, columns = bounding_box(region.float())
    return picture[:, rows, columns]
