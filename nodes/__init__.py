"""The nodes: schemas with short execute() methods, and the extension that the host registers."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .apply import ApplyMoA
from .combine import MoASubjectCombine
from .crop import MoASubjectCrop
from .encode import SubjectEncode
from .face import MoAFaceEmbedding, MoALoadFaceEmbedding
from .host.files.first_start import prepare_first_start
from .host.files.folders import register_adapter_folders
from .layer_strength import MoALayerStrength
from .library import MoALoadEmbeds, MoALoadSubject, MoASaveSubject, MoASubjectBlend
from .load import LoadMoAAdapter, MoALoadIPAdapter, MoALoadMini
from .prompt import MoAAddSubjects, MoATextEncode
from .save import MoASaveAdapter
from .settings import MoASubjectSettings
from .train import MoATrain
from .visualize import RouterVisualize


class MoAExtension(ComfyExtension):
    """The nodes of this extension, for the host to register."""

    async def on_load(self) -> None:
        register_adapter_folders()
        prepare_first_start()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        basics = [
            LoadMoAAdapter,
            MoALoadIPAdapter,
            SubjectEncode,
            MoATextEncode,
            ApplyMoA,
            MoALayerStrength,
            RouterVisualize,
            MoALoadMini,
        ]
        subjects = [
            MoASubjectCrop,
            MoAFaceEmbedding,
            MoALoadFaceEmbedding,
            MoASubjectSettings,
            MoASubjectCombine,
            MoASubjectBlend,
            MoASaveSubject,
            MoALoadSubject,
            MoALoadEmbeds,
            MoAAddSubjects,
        ]
        return [*basics, *subjects, MoATrain, MoASaveAdapter]
