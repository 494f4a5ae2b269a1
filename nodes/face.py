"""MoAFaceEmbedding and MoALoadFaceEmbedding: what FaceID files see through, by a recogniser or a file of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import io
from safetensors.torch import load_file

from ..moa_attention.align import align
from ..moa_attention.crop import Box, Order, choose
from .folders import FACES, face_path, stamp
from .load import CATEGORY
from .sight import CLIP_PICTURE
from .sockets import FaceSocket

SKIP, STOP = "skip the subject", "stop"


class MoAFaceEmbedding(io.ComfyNode):
    """IMAGE and a face recogniser of another pack -> MOA_FACE and aligned faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoAFaceEmbedding",
            display_name="Face Embedding (MoA)",
            category=CATEGORY,
            description="Embeds a face of each picture with a recogniser that you connect from another pack, for FaceID files. "
            "This extension brings none; InsightFace's own models are for non-commercial use.",
            search_aliases=["moa face", "insightface", "faceid", "face embeds", "arcface"],
            inputs=[
                io.Image.Input("images", tooltip="One picture or several of the same person."),
                io.MultiType.Input(
                    "recogniser",
                    types=[io.Custom("INSIGHTFACE"), io.Custom("FACEANALYSIS")],
                    tooltip="From an InsightFace loader of another pack, for example that of IPAdapter_plus or InstantID.",
                ),
                io.Combo.Input(
                    "order", options=["largest first", "left to right"], tooltip="How faces of a picture are counted."
                ),
                io.Int.Input("index", default=1, min=1, max=100, tooltip="Which of them is the subject, from 1."),
                io.Combo.Input(
                    "if_none",
                    options=[STOP, SKIP],
                    tooltip="What becomes of a picture without that face. skip the subject: it is left out, and when none "
                    "remains, the prompt goes on without the subject.",
                ),
            ],
            outputs=[
                FaceSocket.Output(display_name="face", tooltip="For SubjectEncode."),
                io.Image.Output(
                    display_name="images",
                    tooltip="The faces, upright: for SubjectEncode, which needs them with FaceID Plus.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, recogniser: Any, order: Order, index: int, if_none: str) -> io.NodeOutput:
        embeddings, aligned = [], []
        for number, image in enumerate(images[..., :3].float().cpu(), start=1):
            found = recogniser.get(pixels(image))
            boxes = [Box(x, y, right - x, bottom - y) for x, y, right, bottom in (map(float, f.bbox) for f in found)]
            chosen = choose(boxes, order, index)
            if chosen is not None:
                face = found[boxes.index(chosen)]
                embeddings.append(torch.from_numpy(np.asarray(face.normed_embedding, np.float32)))
                aligned.append(align(image, torch.from_numpy(np.asarray(face.kps, np.float32)), CLIP_PICTURE))
            elif if_none == STOP:
                raise ValueError(
                    f"MoAFaceEmbedding looked for face {index} ({order}) in picture {number} and found {len(found) or 'none'}. "
                    "Choose a smaller index or another picture, give more room around the face, or let 'if_none' skip it."
                )
        if not embeddings:
            return io.NodeOutput(torch.zeros(0, 0), torch.zeros(0, CLIP_PICTURE, CLIP_PICTURE, 3))
        return io.NodeOutput(torch.stack(embeddings), torch.stack(aligned))


def pixels(image: torch.Tensor) -> np.ndarray:
    """(H,W,3) in [0,1] -> (H,W,3) uint8 with blue first, as InsightFace wants it."""
    return np.ascontiguousarray((image.clamp(0, 1) * 255).round().byte().numpy()[..., ::-1])


class MoALoadFaceEmbedding(io.ComfyNode):
    """A file of `models/moa/faces` -> MOA_FACE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadFaceEmbedding",
            display_name="Load Face Embedding (MoA)",
            category=CATEGORY,
            description="A face embedding that you made elsewhere, for FaceID files: numbers of InsightFace's recogniser.",
            search_aliases=["moa face", "faceid", "load embeds", "face embedding file"],
            inputs=[
                io.Combo.Input(
                    "face_file",
                    options=folder_paths.get_filename_list(FACES),
                    tooltip="A .npy or .safetensors file in models/moa/faces, with one embedding or a row for each picture.",
                )
            ],
            outputs=[FaceSocket.Output(display_name="face", tooltip="For SubjectEncode.")],
        )

    @classmethod
    def fingerprint_inputs(cls, face_file: str) -> str:
        return stamp(face_path(face_file))

    @classmethod
    def execute(cls, face_file: str) -> io.NodeOutput:
        return io.NodeOutput(read_embedding(face_path(face_file)))


def read_embedding(path: Path) -> torch.Tensor:
    """(K,F) float32 of a file with one array, of K rows or of one embedding.

    Raises: ValueError saying what was found instead.
    """
    try:
        held = (
            load_file(path)
            if path.suffix == ".safetensors"
            else {"": torch.from_numpy(np.load(path, allow_pickle=False))}
        )
    except Exception as error:  # whatever a damaged file makes of the readers
        raise ValueError(f"'{path}' cannot be read as an array of numbers: {error}") from error
    shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in held.items())
    arrays = [t for t in held.values() if t.ndim in (1, 2) and t.is_floating_point() and t.numel()]
    if len(held) != 1 or not arrays:
        raise ValueError(
            f"'{path}' should hold one face embedding, (512,) or (pictures, 512); it holds {shapes or 'nothing'}."
        )
    return arrays[0].float().reshape(-1, arrays[0].shape[-1])
