"""Face Embedding (MoA) and Load Face Embedding (MoA): the input of FaceID files."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io

from ..moa_attention.subjects.crop import BOX_ORDERS, BoxOrder
from ..moa_attention.subjects.pictures import as_pictures
from .host.files.folders import FACES, face_path, file_version
from .host.files.listing import file_names
from .host.pictures.crops import SKIP, STOP
from .host.pictures.face_embeddings import embed_faces, read_embeddings
from .sockets import CATEGORY, FaceSocket


class MoAFaceEmbedding(io.ComfyNode):
    """IMAGE and another pack's face recogniser -> MOA_FACE and aligned faces."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoAFaceEmbedding",
            display_name="Face Embedding (MoA)",
            category=CATEGORY,
            description="Computes the embedding of one face in each picture, for FaceID files. The recogniser comes from another "
            "pack. This extension contains none, because InsightFace's models are for non-commercial use only.",
            search_aliases=["moa face", "insightface", "faceid", "face embeds", "arcface", "instantid"],
            inputs=[
                io.Image.Input("images", tooltip="One or several pictures of the same person."),
                io.MultiType.Input(
                    "recogniser",
                    types=[io.Custom("INSIGHTFACE"), io.Custom("FACEANALYSIS")],
                    tooltip="From the InsightFace loader of another pack, for example IPAdapter_plus or InstantID.",
                ),
                io.Combo.Input(
                    "order", options=list(BOX_ORDERS), tooltip="The order in which the faces of a picture are counted."
                ),
                io.Int.Input(
                    "index",
                    default=1,
                    min=1,
                    max=100,
                    tooltip="The number of the face in that order, counted from 1.",
                ),
                io.Combo.Input(
                    "if_none",
                    options=[STOP, SKIP],
                    tooltip="What happens to a picture without that face. stop: the run ends with a message. skip the subject: "
                    "the picture is left out; if no picture remains, the prompt continues without the subject.",
                ),
            ],
            outputs=[
                FaceSocket.Output(
                    display_name="face", tooltip="Face embeddings. Connect them to Encode Subject (MoA)."
                ),
                io.Image.Output(
                    display_name="images",
                    tooltip="The upright faces. Connect them to images of Encode Subject (MoA); FaceID Plus files use them.",
                ),
            ],
        )

    @classmethod
    def execute(cls, images: torch.Tensor, recogniser: Any, order: BoxOrder, index: int, if_none: str) -> io.NodeOutput:
        pictures = as_pictures(images, "Face Embedding (MoA)")
        return io.NodeOutput(*embed_faces(pictures, recogniser, order, index, required=if_none == STOP))


class MoALoadFaceEmbedding(io.ComfyNode):
    """A file of `models/moa/faces` -> MOA_FACE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoALoadFaceEmbedding",
            display_name="Load Face Embedding (MoA)",
            category=CATEGORY,
            description="Loads a face embedding that you computed elsewhere with InsightFace's recogniser, for FaceID files.",
            search_aliases=["moa face", "faceid", "load embeds", "face embedding file"],
            inputs=[
                io.Combo.Input(
                    "face_file",
                    options=file_names(FACES),
                    tooltip="A .npy or .safetensors file in models/moa/faces. It contains one embedding, or one row for each picture "
                    "of the person.",
                )
            ],
            outputs=[
                FaceSocket.Output(display_name="face", tooltip="Face embeddings. Connect them to Encode Subject (MoA).")
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, face_file: str) -> str:
        return file_version(face_path(face_file))

    @classmethod
    def execute(cls, face_file: str) -> io.NodeOutput:
        return io.NodeOutput(read_embeddings(face_path(face_file)))
