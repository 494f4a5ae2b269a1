"""The nodes that a migrated workflow gets: sockets, widgets with their defaults, and outputs, in the order of the page."""

from __future__ import annotations

from typing import Any, NamedTuple


class Layout(NamedTuple):
    """A node's inputs and outputs."""

    sockets: dict[str, str]
    """Types by name."""
    widgets: dict[str, tuple[str, Any]]
    """Type and default by name."""
    outputs: dict[str, str]
    """Types by name."""
    grows: str = ""
    """Prefix of further sockets, of the type `MOA_SUBJECT`."""
    optional: tuple[str, ...] = ()
    """Sockets that may be empty."""


SUBJECTS = "subjects.subject_"
LAYOUTS: dict[str, Layout] = {
    "MoALoadIPAdapter": Layout(
        {"model": "MODEL"}, {"preset": ("COMBO", "PLUS (high strength)")},
        {"adapter": "MOA_ADAPTER", "clip_vision": "CLIP_VISION", "about": "STRING"},
    ),
    "LoadMoAAdapter": Layout(
        {}, {"adapter_file": ("COMBO", ""), "router_file": ("COMBO", "own")}, {"adapter": "MOA_ADAPTER", "about": "STRING"}
    ),
    "SubjectEncode": Layout(
        {"adapter": "MOA_ADAPTER", "images": "IMAGE", "mask": "MASK", "clip_vision": "CLIP_VISION", "face": "MOA_FACE"},
        {
            "word": ("STRING", "man"), "occurrence": ("INT", 1), "faceid_plus": ("COMBO", "2"), "fit": ("COMBO", "pad"),
            "combine": ("COMBO", "mean"), "before_projection": ("BOOLEAN", False), "faceid_weight": ("FLOAT", 1.0),
            "noise": ("COMBO", "none"), "noise_strength": ("FLOAT", 1.0),
        },
        {"subject": "MOA_SUBJECT"}, optional=("mask", "clip_vision", "face"),
    ),
    "MoAFaceEmbedding": Layout(
        {"images": "IMAGE", "recogniser": "INSIGHTFACE,FACEANALYSIS"},
        {"order": ("COMBO", "largest first"), "index": ("INT", 1), "if_none": ("COMBO", "stop")},
        {"face": "MOA_FACE", "images": "IMAGE"},
    ),
    "MoALoadEmbeds": Layout(
        {"adapter": "MOA_ADAPTER", "clip_vision": "CLIP_VISION"}, {"embeds_file": ("COMBO", ""), "word": ("STRING", "man")},
        {"subject": "MOA_SUBJECT"}, optional=("clip_vision",),
    ),
    "MoASubjectCombine": Layout(
        {}, {"how": ("COMBO", "mean"), "weights": ("STRING", "")}, {"subject": "MOA_SUBJECT"}, SUBJECTS
    ),
    "MoASubjectSettings": Layout(
        {"subject": "MOA_SUBJECT", "region": "MASK", "layer_strength": "MOA_LAYER_STRENGTH"},
        {
            "strength": ("FLOAT", 1.0), "start_percent": ("FLOAT", 0.0), "end_percent": ("FLOAT", 1.0),
            "weight_type": ("COMBO", "linear"), "embeds_scaling": ("COMBO", "V only"), "weights": ("STRING", ""),
        },
        {"subject": "MOA_SUBJECT"}, optional=("region", "layer_strength"),
    ),
    "MoALayerStrength": Layout(
        {},
        {
            **dict.fromkeys(("input", "middle", "output", "self_attention", "cross_attention"), ("FLOAT", 1.0)),
            "single": ("STRING", ""),
        },
        {"layer_strength": "MOA_LAYER_STRENGTH"},
    ),
    "MoASaveSubject": Layout(
        {"subject": "MOA_SUBJECT", "thumbnail": "IMAGE"}, {"filename_prefix": ("STRING", "subject")}, {"path": "STRING"},
        optional=("thumbnail",),
    ),
    "MoAAddSubjects": Layout({"conditioning": "CONDITIONING"}, {}, {"CONDITIONING": "CONDITIONING"}, SUBJECTS),
    "ApplyMoA": Layout(
        {"model": "MODEL", "adapter": "MOA_ADAPTER", "layer_strength": "MOA_LAYER_STRENGTH", "negative_subject": "MOA_SUBJECT"},
        {
            "strength": ("FLOAT", 1.0), "start_percent": ("FLOAT", 0.0), "end_percent": ("FLOAT", 1.0),
            "router": ("COMBO", "automatic"), "pixels": ("COMBO", "automatic"), "keep_background": ("BOOLEAN", False),
            "subject_guidance": ("FLOAT", 1.0), "live_map": ("BOOLEAN", False), "negative_image": ("COMBO", "as published"), "faceid_lora": ("FLOAT", 1.0),
        },
        {"MODEL": "MODEL", "trace": "MOA_TRACE"}, optional=("layer_strength", "negative_subject"),
    ),
    "ImageScale": Layout(
        {"image": "IMAGE"},
        {"upscale_method": ("COMBO", "lanczos"), "width": ("INT", 224), "height": ("INT", 224), "crop": ("COMBO", "center")},
        {"IMAGE": "IMAGE"},
    ),
    "ImageCrop": Layout(
        {"image": "IMAGE"}, {"width": ("INT", 512), "height": ("INT", 512), "x": ("INT", 0), "y": ("INT", 0)}, {"IMAGE": "IMAGE"}
    ),
    "ImageRotate": Layout({"image": "IMAGE"}, {"rotation": ("COMBO", "180 degrees")}, {"IMAGE": "IMAGE"}),
    "GetImageSize": Layout({"image": "IMAGE"}, {}, {"width": "INT", "height": "INT", "batch_size": "INT"}),
    "ResizeAndPadImage": Layout(
        {"image": "IMAGE"},
        {
            "target_width": ("INT", 224), "target_height": ("INT", 224), "padding_color": ("COMBO", "black"),
            "interpolation": ("COMBO", "lanczos"),
        },
        {"IMAGE": "IMAGE"},
    ),
    "EmptyImage": Layout(
        {}, {"width": ("INT", 224), "height": ("INT", 224), "batch_size": ("INT", 1), "color": ("INT", 0)}, {"IMAGE": "IMAGE"}
    ),
    "ConditioningSetMask": Layout(
        {"conditioning": "CONDITIONING", "mask": "MASK"},
        {"strength": ("FLOAT", 1.0), "set_cond_area": ("COMBO", "default")}, {"CONDITIONING": "CONDITIONING"},
    ),
    "IPAdapterInsightFaceLoader": Layout(
        {}, {"provider": ("COMBO", "CPU"), "model_name": ("COMBO", "buffalo_l")}, {"INSIGHTFACE": "INSIGHTFACE"}
    ),
}  # fmt: skip
