"""The interface of the nodes in saved workflows. Renaming anything here breaks them; additions go to the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from comfyui_moa.nodes import MoAExtension
from comfyui_moa.nodes.host.files.folders import register_adapter_folders

register_adapter_folders()
NODES = {node.GET_SCHEMA().node_id: node for node in asyncio.run(MoAExtension().get_node_list())}
EXPECTED: dict[str, tuple[list[str], list[str]]] = {
    "LoadMoAAdapter": (["adapter_file:COMBO", "router_file:COMBO?"], ["MOA_ADAPTER", "STRING"]),
    "MoALoadIPAdapter": (["model:MODEL", "preset:COMBO"], ["MOA_ADAPTER", "CLIP_VISION", "STRING"]),
    "MoALoadEmbeds": (
        ["adapter:MOA_ADAPTER", "embeds_file:COMBO", "word:STRING", "clip_vision:CLIP_VISION?"],
        ["MOA_SUBJECT"],
    ),
    "MoAAddSubjects": (["conditioning:CONDITIONING", "subjects:COMFY_AUTOGROW_V3?"], ["CONDITIONING"]),
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
            "fit:COMBO?",
            "combine:COMBO?",
            "before_projection:BOOLEAN?",
            "faceid_weight:FLOAT?",
            "noise:COMBO?",
            "noise_strength:FLOAT?",
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
            "keep_background:BOOLEAN?",
            "subject_guidance:FLOAT?",
            "live_map:BOOLEAN?",
            "negative_image:COMBO?",
            "negative_subject:MOA_SUBJECT?",
            "faceid_lora:FLOAT?",
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
            "subject:COMBO?",
        ],
        ["IMAGE", "MASK", "STRING"],
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
        [
            "subject:MOA_SUBJECT",
            "strength:FLOAT",
            "start_percent:FLOAT",
            "end_percent:FLOAT",
            "region:MASK?",
            "weight_type:COMBO?",
            "embeds_scaling:COMBO?",
            "layer_strength:MOA_LAYER_STRENGTH?",
            "weights:STRING?",
        ],
        ["MOA_SUBJECT"],
    ),
    "MoASubjectBlend": (
        ["first:MOA_SUBJECT", "second:MOA_SUBJECT", "amount:FLOAT", "along:COMBO"],
        ["MOA_SUBJECT"],
    ),
    "MoASaveSubject": (
        ["subject:MOA_SUBJECT", "filename_prefix:STRING", "thumbnail:IMAGE?", "licence:STRING?"],
        ["STRING"],
    ),
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
            "only_routers:BOOLEAN?",
            "router_foreground:FLOAT?",
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
def test_every_input_and_output_is_explained(name: str):
    schema = NODES[name].GET_SCHEMA()
    assert schema.category == "MoA"
    assert schema.description and len(schema.description) > 40
    assert schema.display_name
    assert len(schema.search_aliases) >= 3
    for entry in [*schema.inputs, *schema.outputs]:
        assert entry.tooltip and len(entry.tooltip) > 10, f"{name}: {entry.id}"


def test_nodes_that_show_or_write_something_are_output_nodes():
    outputs = {name for name, node in NODES.items() if node.GET_SCHEMA().is_output_node}
    assert outputs == {"RouterVisualize", "MoASaveAdapter", "MoASaveSubject"}


def test_defaults_leave_the_adapter_as_trained():
    defaults = {entry.id: entry.default for entry in NODES["ApplyMoA"].GET_SCHEMA().inputs if hasattr(entry, "default")}
    assert defaults == defaults | {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "keep_background": False}


def test_the_router_is_shown_as_before_by_default():
    defaults = {
        entry.id: entry.default for entry in NODES["RouterVisualize"].GET_SCHEMA().inputs if hasattr(entry, "default")
    }
    assert defaults["subject"] == "together"
