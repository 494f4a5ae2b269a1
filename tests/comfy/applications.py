"""Runs an example workflow from its file, and measures its pictures with the judges of MoA Mini's evaluation."""

from __future__ import annotations

import importlib
import io
import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from devtools import demo
from devtools.server import Server
from devtools.workflow import to_prompt

MEN = {"moa_man.png": 2767, "moa_man_2.png": 2758, "moa_man_3.png": 2759, "moa_man_4.png": 2772}
"""Test identities of the bundled pictures; the judges choose among these and 16 other men."""


def evaluator() -> Any:
    """The evaluation's measures, with the candidates of the test split."""
    return importlib.import_module("comfyui_moa.recipes.mini.judging.evaluator").Evaluator()


def run(server: Server, name: str, masks_of: str = "") -> dict[str, Tensor]:
    """The pictures (N,3,H,W) of every node that shows some, by its title.

    Args: masks_of: title of a Visualize MoA Router, whose masks are added as "mask".
    """
    workflow = json.loads((demo.EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, server.object_info())
    titles = {str(node["id"]): node.get("title") or node["type"] for node in workflow["nodes"]}
    if masks_of:
        [source] = [key for key, title in titles.items() if title == masks_of]
        prompt["mask"] = {"class_type": "MaskToImage", "inputs": {"mask": [source, 1]}}
        prompt["masks"] = {"class_type": "SaveImage", "inputs": {"images": ["mask", 0], "filename_prefix": "mask"}}
        titles["masks"] = "mask"
    outputs = server.queue(prompt)["outputs"]
    files = {titles[key]: output.get("images", []) for key, output in outputs.items()}
    return {title: torch.stack([pixels(server, item) for item in items]) for title, items in files.items() if items}


def pixels(server: Server, item: dict[str, str]) -> Tensor:
    """(3,H,W) in [0,1]."""
    picture = Image.open(io.BytesIO(server.image(item))).convert("RGB")
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255


def reference(name: str) -> Tensor:
    """A bundled picture (3,H,W) in [0,1]."""
    picture = Image.open(demo.EXAMPLES / "references" / name).convert("RGB")
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255


def embeddings(judge: Any, pictures: Tensor) -> Tensor:
    """The only person of each picture: (N,3,128,128) -> (N,E)."""
    outlines = judge.judges.segment(pictures)
    return torch.cat([judge.embed_people(p, o, 1) for p, o in zip(pictures, outlines, strict=True)])


def recognised(judge: Any, pictures: Tensor, identity: int) -> int:
    """In how many pictures the judge recognises the person among 20."""
    return sum(judge.nearest(identity, e) == identity for e in embeddings(judge, pictures))


def likeness(judge: Any, pictures: Tensor, identity: int) -> Tensor:
    """(N,): cosines to the person's mean embedding."""
    return embeddings(judge, pictures) @ judge.gallery[identity]


def outlines(judge: Any, pictures: Tensor) -> Tensor:
    """Soft masks (N,H,W) of the people in pictures (N,3,H,W)."""
    return F.interpolate(judge.judges.segment(pictures)[:, None], size=pictures.shape[-2:], mode="bilinear")[:, 0]


def squared_change(pictures: Tensor, base: Tensor, where: Tensor) -> Tensor:
    """(N,): mean squared difference on a scale of 0 to 1 where `where` (N or 1,H,W) is 1."""
    change = (pictures - base).square().mean(dim=1)
    return (change * where).sum(dim=(1, 2)) / where.expand_as(change).sum(dim=(1, 2))


def brightness(pictures: Tensor, where: Tensor) -> Tensor:
    """(N,): mean of the pictures (N,3,H,W) where `where` (N,H,W) is 1."""
    return (pictures.mean(dim=1) * where).sum(dim=(1, 2)) / where.sum(dim=(1, 2))


def grown(masks: Tensor, pixels: int) -> Tensor:
    """Masks (N,H,W), wider by so many pixels on each side."""
    return F.max_pool2d(masks[:, None], 2 * pixels + 1, stride=1, padding=pixels)[:, 0]


def in_sepia(pictures: Tensor, where: Tensor) -> int:
    """In how many pictures (N,3,H,W) most of the pixels where `where` (N,H,W) is 1 have the style's order of colours: red, green, blue."""
    red, green, blue = pictures.unbind(dim=1)
    brown = ((red > green) & (green > blue)).float()
    return int(((brown * where).sum(dim=(1, 2)) > 0.9 * where.sum(dim=(1, 2))).sum())


def overlap(masks: Tensor, others: Tensor) -> Tensor:
    """(N,): intersection over union of masks (N,H,W)."""
    masks, others = masks > 0.5, others > 0.5
    return (masks & others).sum(dim=(1, 2)) / (masks | others).sum(dim=(1, 2))


def centres(masks: Tensor) -> Tensor:
    """(N,): where the middle of each mask (N,H,W) lies between the left border, 0, and the right one, 1."""
    across = (torch.arange(masks.shape[-1]) + 0.5) / masks.shape[-1]
    return (masks * across).sum(dim=(1, 2)) / masks.sum(dim=(1, 2))


def rises(values: Tensor) -> bool:
    """Whether each value is above the one before."""
    return bool((values.diff() > 0).all())
