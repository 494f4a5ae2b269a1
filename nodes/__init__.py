"""The nodes: everything that imports ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply import ApplyMoA
from .combine import MoASubjectCombine
from .crop import MoASubjectCrop
from .face import MoAFaceEmbedding, MoALoadFaceEmbedding
from .folders import register_adapter_folders
from .layer_strength import MoALayerStrength
from .library import MoALoadSubject, MoASaveSubject, MoASubjectBlend
from .load import LoadMoAAdapter, MoALoadMini
from .prompt import MoATextEncode
from .save import MoASaveAdapter
from .settings import MoASubjectSettings
from .subject import SubjectEncode
from .train import MoATrain
from .visualize import RouterVisualize


class MoAExtension(ComfyExtension):
    """What the host registers."""

    async def on_load(self) -> None:
        register_adapter_folders()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        using = [LoadMoAAdapter, SubjectEncode, MoATextEncode, ApplyMoA, MoALayerStrength, RouterVisualize, MoALoadMini]
        subjects = [
            MoASubjectCrop,
            MoAFaceEmbedding,
            MoALoadFaceEmbedding,
            MoASubjectSettings,
            MoASubjectCombine,
            MoASubjectBlend,
            MoASaveSubject,
            MoALoadSubject,
        ]
        return [*using, *subjects, MoATrain, MoASaveAdapter]
