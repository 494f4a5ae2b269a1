"""The nodes as workflows know them. A change here breaks saved workflows: rename nothing, add at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import subjects  # noqa: F401  (imports the pack)
from comfyui_moa.nodes import MoAExtension
from comfyui_moa.nodes.folders import register_adapter_folders

register_adapter_folders()
NODES = {node.GET_SCHEMA().node_id: node for node in asyncio.run(MoAExtension().get_node_list())}
EXPECTED: dict[str, tuple[list[str], list[str]]] = {
    "LoadMoAAdapter": (["adapter_file:COMBO", "router_file:COMBO?"], ["MOA_ADAPTER", "STRING"]),
    "SubjectEncode": (
        [
            "adapter:MOA_ADAPTER",
            "images:IMAGE",
            "word:STRING",
            "mask:MASK?",
            "clip_vision:CLIP_VISION?",
            "occurrence:INT",
            "face:MOA_FACE?",
            "faceid_plus:COMBO?",
        ],
        ["MOA_SUBJECT"],
    ),
    "MoASubjectCombine": (["subjects:COMFY_AUTOGROW_V3", "how:COMBO", "weights:STRING?"], ["MOA_SUBJECT"]),
    "MoAFaceEmbedding": (
        ["images:IMAGE", "recogniser:COMFY_MULTITYPED_V3", "order:COMBO", "index:INT", "if_none:COMBO"],
        ["MOA_FACE", "IMAGE"],
    ),
    "MoALoadFaceEmbedding": (["face_file:COMBO"], ["MOA_FACE"]),
    "MoALayerStrength": (
        [
            "input:FLOAT",
            "middle:FLOAT",
            "output:FLOAT",
            "self_attention:FLOAT",
            "cross_attention:FLOAT",
            "single:STRING?",
        ],
        ["MOA_LAYER_STRENGTH"],
    ),
    "MoATextEncode": (
        ["clip:CLIP", "text:STRING", "subjects:COMFY_AUTOGROW_V3?"],
        ["CONDITIONING", "STRING"],
    ),
    "ApplyMoA": (
        [
            "model:MODEL",
            "adapter:MOA_ADAPTER",
            "strength:FLOAT",
            "start_percent:FLOAT",
            "end_percent:FLOAT",
            "router:COMBO?",
            "layer_strength:MOA_LAYER_STRENGTH?",
            "pixels:COMBO?",
        ],
        ["MODEL", "MOA_TRACE"],
    ),
    "RouterVisualize": (
        [
            "trace:MOA_TRACE",
            "image:IMAGE",
            "mode:COMBO",
            "layers:COMBO",
            "first_step:INT",
            "last_step:INT",
            "mask_threshold:FLOAT",
        ],
        ["IMAGE", "MASK"],
    ),
    "MoASubjectCrop": (
        [
            "images:IMAGE",
            "order:COMBO",
            "index:INT",
            "margin:FLOAT",
            "if_none:COMBO",
            "boxes:BOUNDING_BOX?",
            "mask:MASK?",
        ],
        ["IMAGE", "STRING"],
    ),
    "MoASubjectSettings": (
        ["subject:MOA_SUBJECT", "strength:FLOAT", "start_percent:FLOAT", "end_percent:FLOAT", "region:MASK?"],
        ["MOA_SUBJECT"],
    ),
    "MoASubjectBlend": (
        ["first:MOA_SUBJECT", "second:MOA_SUBJECT", "amount:FLOAT", "along:COMBO"],
        ["MOA_SUBJECT"],
    ),
    "MoASaveSubject": (["subject:MOA_SUBJECT", "filename_prefix:STRING", "thumbnail:IMAGE?"], ["STRING"]),
    "MoALoadSubject": (["subject_file:COMBO", "word:STRING", "occurrence:INT"], ["MOA_SUBJECT", "IMAGE"]),
    "MoALoadMini": (["model:COMBO"], ["MODEL", "CLIP", "VAE"]),
    "MoATrain": (
        [
            "model:MODEL",
            "clip:CLIP",
            "vae:VAE",
            "folder:COMBO",
            "name:STRING",
            "steps:INT",
            "batch_size:INT",
            "micro_batch:INT",
            "learning_rate:FLOAT",
            "rank:INT",
            "side:INT",
            "checkpointing:BOOLEAN",
            "seed:INT",
            "licence:STRING",
            "preview_every:INT",
            "preview_prompts:STRING",
            "start:MOA_ADAPTER?",
            "clip_vision:CLIP_VISION?",
            "clip_vision_name:STRING",
        ],
        ["MOA_ADAPTER", "LOSS_MAP", "STRING"],
    ),
    "MoASaveAdapter": (["adapter:MOA_ADAPTER", "filename_prefix:STRING", "precision:COMBO"], ["STRING"]),
}


def described(entry: Any) -> str:
    return f"{entry.id}:{entry.io_type}" + ("?" if entry.optional else "")


def test_these_are_the_nodes():
    assert set(NODES) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_inputs_and_outputs(name: str):
    schema, (inputs, outputs) = NODES[name].GET_SCHEMA(), EXPECTED[name]
    assert [described(entry) for entry in schema.inputs] == inputs
    assert [entry.io_type for entry in schema.outputs] == outputs


@pytest.mark.parametrize("name", EXPECTED)
def test_every_seam_is_explained(name: str):
    schema = NODES[name].GET_SCHEMA()
    assert schema.category == "MoA"
    assert schema.description and len(schema.description) > 40
    assert schema.display_name
    assert len(schema.search_aliases) >= 3
    for entry in [*schema.inputs, *schema.outputs]:
        assert entry.tooltip and len(entry.tooltip) > 10, f"{name}: {entry.id}"


def test_what_shows_or_writes_something_is_an_output_node():
    outputs = {name for name, node in NODES.items() if node.GET_SCHEMA().is_output_node}
    assert outputs == {"RouterVisualize", "MoASaveAdapter", "MoASaveSubject"}


def test_defaults_leave_the_adapter_as_trained():
    defaults = {entry.id: entry.default for entry in NODES["ApplyMoA"].GET_SCHEMA().inputs if hasattr(entry, "default")}
    assert defaults == defaults | {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
