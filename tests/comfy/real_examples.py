"""Workflows in the page's format, run node by node in this process: tiny models, random pictures, and the real nodes of both extensions."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar
from zlib import crc32

import cv2
import host
import numpy as np
import torch
from comfy_extras import nodes_images
from comfyui_moa.moa_attention.subjects.align import TEMPLATE, similarity
from comfyui_moa.nodes import MoAExtension
from comfyui_moa.nodes.host.model.unet import attention_layers, unet_of
from ipadapter_plus import Extension
from test_image_prompts import FEATURES
from test_real_pack import Kind, kind, pack
from torch import Tensor

from devtools.migration.graph import Link
from devtools.migration.ours import LAYOUTS, SUBJECTS
from devtools.migration.page_graph import PageGraph
from devtools.migration.theirs import APPLY

FORMS = {
    "STANDARD": "base", "PLUS (": "plus", "FULL FACE": "full", "FACEID PLUS V2": "faceid plus", "FACEID PORTRAIT": "faceid portrait",
    "ip-adapter-plus_sd15": "plus",
}  # fmt: skip
"""Kinds of files by how presets and names of files begin."""
OWN = {node.__name__: node for node in asyncio.run(MoAExtension().get_node_list())}
LATENT = 64
"""Pixels of the workflows for one of the latents here."""


def noise(name: str, *shape: int) -> Tensor:
    """Uniform, the same for the same name."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(crc32(name.encode())))


class Recogniser:
    """InsightFace's interface: one face in the middle of every picture."""

    det_model = SimpleNamespace(input_size=None)

    def get(self, pixels: np.ndarray) -> list[Any]:
        height, width = pixels.shape[:2]
        kps = TEMPLATE.numpy() * 0.4 + [width / 2 - 22, height / 2 - 26]
        embedding = np.random.default_rng(0).standard_normal(512).astype(np.float32)
        box = np.array([width / 4, height / 4, width * 3 / 4, height * 3 / 4])
        return [
            SimpleNamespace(
                bbox=box, kps=kps, embedding=embedding, normed_embedding=embedding / np.linalg.norm(embedding)
            )
        ]


def norm_crop(image: np.ndarray, landmark: np.ndarray, image_size: int) -> np.ndarray:
    """InsightFace's aligned face of 224 or 256 pixels."""
    target = 2 * TEMPLATE + torch.tensor([(image_size - 224) / 2, 0.0])
    matrix = similarity(torch.from_numpy(landmark).float(), target).numpy()
    return cv2.warpAffine(image, matrix, (image_size, image_size), borderValue=0.0)


def install_insightface() -> None:
    """The one function that IPAdapter_plus imports of it."""
    utils = ModuleType("insightface.utils")
    utils.face_align = SimpleNamespace(norm_crop=norm_crop)  # pyright: ignore[reportAttributeAccessIssue]
    sys.modules |= {"insightface": ModuleType("insightface"), "insightface.utils": utils}


@dataclass
class Run:
    """Of one workflow."""

    graph: PageGraph
    base: str
    """SD1.5 or SDXL."""
    plain: bool = False
    """Whether nodes with image prompts leave the model as it is."""
    done: dict[str, tuple] = field(default_factory=dict)
    loaded: ClassVar[Any] = host.clip_vision(FEATURES, FEATURES)

    def samples(self) -> list[Tensor]:
        """What its samplers give, in the order of their numbers."""
        nodes = sorted((n for n in self.graph.ids() if self.graph.kind(n) == "KSampler"), key=int)
        return [self.value(Link(node, 0)) for node in nodes]

    def value(self, source: Link) -> Any:
        """An output."""
        if source.node not in self.done:
            self.done[source.node] = tuple(self.outputs(source.node))
        return self.done[source.node][source.slot]

    def inputs(self, node: str) -> dict[str, Any]:
        """Values by name."""
        name, found = self.graph.kind(node), self.graph.inputs(node)
        if name in LAYOUTS:
            found = dict(zip(LAYOUTS[name].widgets, self.widgets(node), strict=False)) | found
        return {key: self.value(given) if isinstance(given, Link) else given for key, given in found.items()}

    def widgets(self, node: str) -> list[Any]:
        return self.graph.nodes[node].get("widgets_values") or []

    def outputs(self, node: str) -> Any:
        name, given = self.graph.kind(node), self.inputs(node)
        if self.plain and name in APPLY:
            return given["model"], given.get("image")
        if name in SIMPLE:
            return SIMPLE[name](self, given, self.widgets(node))
        if name in OWN:
            grown = {key.removeprefix("subjects."): given.pop(key) for key in list(given) if key.startswith(SUBJECTS)}
            return OWN[name].execute(**given, **({"subjects": grown} if grown else {})).result
        classes = importlib.import_module("nodes").NODE_CLASS_MAPPINGS if name not in pack() else pack()
        of = classes[name].INPUT_TYPES()["required"]
        defaults = {
            key: entry[1].get("default") if len(entry) > 1 else entry[0][0]
            for key, entry in of.items()
            if key not in given
        }
        made = classes[name]()
        return getattr(made, made.FUNCTION)(**defaults, **given)

    def kind(self, widgets: list[Any]) -> Kind:
        form = next(form for start, form in FORMS.items() if str(widgets[0]).startswith((start, f"ipadapter/{start}")))
        return kind(f"{self.base} {form}")

    def unified(self, given: dict[str, Any], widgets: list[Any]) -> tuple:
        """Their loader: a FaceID file brings its LoRA onto the model."""
        found, model = self.kind(widgets), given["model"].clone()
        file = {**found.file, **({"faceidplusv2": True} if "V2" in widgets[0] else {})}
        if "0.to_q_lora.down.weight" in file["ip_adapter"]:
            lora = Extension("sd15", file["ip_adapter"], [])
            lora.on(model)
            model.add_patches(dict(lora.differences(list(attention_layers(unet_of(model.model))))), widgets[1])
        return model, {
            "ipadapter": {"model": file},
            "clipvision": {"model": self.loaded},
            "insightface": {"model": Recogniser()},
        }

    def prompt(self, text: str) -> Any:
        """A CONDITIONING of the text."""
        context, pooled = (768, None) if self.base == "SD1.5" else (2048, host.SDXL_G)
        return host.conditioning(context, pooled=pooled, seed=crc32(text.encode()))


def latent(given: dict[str, Any], widgets: list[Any]) -> tuple:
    width, height, batch = widgets
    return (host.empty_latent(height // LATENT, width // LATENT, given.get("batch_size", batch)),)


def sample(run: Run, given: dict[str, Any], widgets: list[Any]) -> tuple:
    return (host.sample(given["model"], given["positive"], given["negative"], given["latent_image"], cfg=widgets[3]),)


def halves(*_: Any) -> tuple:
    """Masks by colour: the thirds of a picture."""
    masks = torch.zeros(8, 1, 48, 48)
    for i in range(8):
        masks[i, :, :, 16 * (i % 3) : 16 * (i % 3) + 16] = 1
    return tuple(masks)


SIMPLE: dict[str, Callable[[Run, dict[str, Any], list[Any]], Any]] = {
    "CheckpointLoaderSimple": lambda run, _, __: (kind(f"{run.base} base").model, None, None),
    "CLIPTextEncode": lambda run, _, w: (run.prompt(w[0]),),
    "CLIPVisionLoader": lambda run, _, __: (run.loaded,),
    "LoadImage": lambda _, __, w: (noise(w[0], 1, 96, 72, 3), None),
    "EmptyLatentImage": lambda _, given, w: latent(given, w),
    "KSampler": sample,
    "IPAdapterModelLoader": lambda run, _, w: (run.kind(w).file,),
    "IPAdapterUnifiedLoader": Run.unified,
    "IPAdapterUnifiedLoaderFaceID": Run.unified,
    "IPAdapterInsightFaceLoader": lambda *_: (Recogniser(),),
    "LoadMoAAdapter": lambda run, _, w: (run.kind(w).adapter, ""),
    "MoALoadIPAdapter": lambda run, _, w: (run.kind(w).adapter, run.loaded, ""),
    "GetImageSize": lambda _, given, __: (*given["image"].shape[2:0:-1], len(given["image"])),
    **{
        name: lambda _, given, __, name=name: getattr(nodes_images, name).execute(**given).result
        for name in ("ImageCrop", "ImageRotate", "ResizeAndPadImage")
    },
    "ImageCASharpening+": lambda _, given, __: (given["image"],),
    "SimpleMath+": lambda _, given, w: (int(w[0].replace("a*", "")) * given.get("a", 1),) * 2,
    "MaskFromRGBCMYBW+": halves,
    "ConditioningCombineMultiple+": lambda _, given, __: ([entry for entries in given.values() for entry in entries],),
}
"""Nodes of the host with tiny models and pictures of noise, and simple ones of other packs."""
