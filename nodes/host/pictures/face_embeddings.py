"""Face embeddings for FaceID files: from another pack's InsightFace recogniser, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....moa_attention.formats.errors import StoredFileError, enumeration, printable
from ....moa_attention.formats.tensors import StoredFile, check_file, from_memory, open_stored
from ....moa_attention.subjects.align import align
from ....moa_attention.subjects.crop import BoxOrder, PixelBox, select_box
from .vision import CLIP_PICTURE


def embed_faces(images: Tensor, recogniser: Any, order: BoxOrder, index: int, required: bool) -> tuple[Tensor, Tensor]:
    """The selected face of each picture (B,H,W,3): embeddings (K,512) as the recogniser gives them, and upright faces (K,224,224,3).

    Pictures without that face are left out; if none has it, K is 0.

    Args: required: whether every picture must have it.
    Raises: ValueError when a required face is missing.
    """
    embeddings, faces = [], []
    for number, image in enumerate(images.float().cpu(), start=1):
        found = recogniser.get(insightface_pixels(image))
        boxes = [PixelBox(x, y, right - x, bottom - y) for x, y, right, bottom in (map(float, f.bbox) for f in found)]
        selected = select_box(boxes, order, index)
        if selected is not None:
            face = found[boxes.index(selected)]
            embeddings.append(torch.from_numpy(np.asarray(face.embedding, np.float32)))
            faces.append(align(image, torch.from_numpy(np.asarray(face.kps, np.float32)), CLIP_PICTURE))
        elif required:
            raise ValueError(
                f"'Face Embedding (MoA)' needs face {index} ({order}) in picture {number}, but found {len(found) or 'none'}. "
                "Choose a smaller 'index' or another picture, leave more room around the face, or set 'if_none' to 'skip the "
                "subject'."
            )
    if not embeddings:
        return torch.zeros(0, 0), torch.zeros(0, CLIP_PICTURE, CLIP_PICTURE, 3)
    return torch.stack(embeddings), torch.stack(faces)


def insightface_pixels(image: Tensor) -> np.ndarray:
    """(H,W,3) in [0,1] -> (H,W,3) uint8, blue first, as InsightFace expects."""
    return np.ascontiguousarray((image.clamp(0, 1) * 255).round().byte().numpy()[..., ::-1])


def read_embeddings(path: Path) -> Tensor:
    """(K,F) float32 of a .npy or .safetensors file with one array of K rows, or of a single embedding.

    Raises: StoredFileError stating what the file contains instead.
    """
    stored = open_stored(path) if path.suffix == ".safetensors" else open_array(path)
    arrays = stored.tensors
    valid = [name for name, a in arrays.items() if a.ndim in (1, 2) and a.is_floating_point()]
    if len(arrays) != 1 or not valid:
        found = enumeration([f"{name} {tuple(a.shape)}" for name, a in arrays.items()])
        raise StoredFileError(
            path,
            f"must contain one array of face embeddings, (512,) or (pictures, 512), but contains {found}. Save the embeddings "
            "of one person as a single array of floating-point numbers.",
        )
    embeddings = stored.read(valid)[valid[0]].float()
    if not embeddings.isfinite().all():
        raise StoredFileError(path, "contains NaN or infinity instead of face embeddings. Save the embedding again.")
    return embeddings.reshape(-1, embeddings.shape[-1])


def open_array(path: Path) -> StoredFile:
    """A .npy file. It is mapped and copied, because a header may claim more than the file holds.

    Raises: StoredFileError when it is missing or damaged, or holds no plain array of numbers.
    """
    check_file(path)
    try:
        array = torch.from_numpy(np.array(np.lib.format.open_memmap(path, mode="r")))
    except Exception as error:  # a damaged file can raise anything in the reader
        raise StoredFileError(
            path,
            f"cannot be read as an array of numbers ({printable(error)}). Save the embedding again as .npy or .safetensors.",
        ) from error
    return from_memory(path, {"an array": array})
