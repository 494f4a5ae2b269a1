"""The counterparts of nodes beside the chains: prepared pictures, prompts of regions, saved embeds."""

from __future__ import annotations

from typing import Any

from .chains import Chains
from .graph import Graph, Link
from .report import Report
from .theirs import APPLY, LEFT

PREPARED = {"interpolation": "LANCZOS", "sharpening": 0}
"""What the host's node does."""
SIDES = {"top": (0, False), "left": (1, False), "bottom": (0, True), "right": (1, True)}
"""By the crop's position: the output of Get Image Size that is the side of the square, and whether the picture is turned around for it."""


def replace_helpers(graph: Graph, report: Report, chains: Chains) -> None:
    """Replace them all; those whose pictures go to a node that stays remain."""
    for node in graph.ids():
        if graph.kind(node) in REPLACED and graph.active(node):
            REPLACED[graph.kind(node)](graph, report, chains, node)


def stays(graph: Graph, chains: Chains, node: str) -> bool:
    """Whether a node with image prompts is not migrated."""
    return graph.kind(node) in (*APPLY, *LEFT) and node not in chains.prompts


def prepared_picture(graph: Graph, report: Report, chains: Chains, node: str) -> None:
    """A picture cut to a square: the host's own node."""
    given = graph.inputs(node)
    if any(stays(graph, chains, use.node) for use in graph.users(Link(node, 0))):
        return
    changed = {name: value for name, value in PREPARED.items() if given.get(name, value) != value}
    report.differs(node, [f"{name} {given[name]!r} becomes {value!r}" for name, value in changed.items()])
    kinds: list[str] = []

    def add(kind: str, title: str, image: Any, **inputs: Any) -> Link:
        kinds.append(kind)
        return Link(
            graph.add(kind, title, {**({"image": image} if isinstance(image, Link) else {}), **inputs}, node), 0
        )

    picture, position = given.get("image"), given.get("crop_position", "center")
    if position == "pad":
        made = add("ResizeAndPadImage", "Resize And Pad Image", picture)
    else:
        side, turned = SIDES.get(position, (None, False))
        if turned:
            picture = add("ImageRotate", "Rotate Image", picture)
        if side is not None:
            # Where the picture has no such square, the crop is all of it, and the next node takes the centre, as there.
            length = add("GetImageSize", "Get Image Size", picture)._replace(slot=side)
            picture = add("ImageCrop", "Crop Image", picture, width=length, height=length)
        made = add("ImageScale", "Upscale Image", picture)
        made = add("ImageRotate", "Rotate Image", made) if turned else made
    graph.redirect(Link(node, 0), made)
    report.became(node, *kinds)


def prompts_of_region(graph: Graph, report: Report, chains: Chains, node: str) -> None:
    """The prompts of a region: the host's own masks."""
    given = graph.inputs(node)
    mask = given.get("mask")
    for slot, name in ((1, "positive"), (2, "negative")) if node in chains.regions else ():
        prompt = given.get(name)
        if isinstance(prompt, Link) and isinstance(mask, Link) and graph.users(Link(node, slot)):
            inputs = {"conditioning": prompt, "mask": mask, "strength": given.get("prompt_weight", 1.0)}
            prompt = Link(graph.add("ConditioningSetMask", "Conditioning (Set Mask)", inputs, node), 0)
            report.became(node, "ConditioningSetMask")
        graph.redirect(Link(node, slot), prompt)


def saved_embeds(graph: Graph, report: Report, chains: Chains, node: str) -> None:
    """Saved embeds: a saved subject."""
    given = graph.inputs(node)
    subject = chains.subjects.embeds(given["embeds"], None) if isinstance(given.get("embeds"), Link) else None
    if subject is not None:
        inputs = {"subject": subject, "filename_prefix": given.get("filename_prefix", "subject")}
        graph.add("MoASaveSubject", "Save Subject (MoA)", inputs, node)
        report.became(node, "MoASaveSubject")


REPLACED = {
    "PrepImageForClipVision": prepared_picture,
    "IPAdapterRegionalConditioning": prompts_of_region,
    "IPAdapterSaveEmbeds": saved_embeds,
}
