"""IPAdapter_plus' nodes as saved workflows have them: the order of their widgets, and which of them are migrated."""

from __future__ import annotations

from collections.abc import Iterable

ENDS = ("start_at", "end_at")
PLAIN = ("weight", "weight_type", "combine_embeds", *ENDS, "embeds_scaling")
FACE = ("weight", "weight_faceidv2", "weight_type", "combine_embeds", *ENDS, "embeds_scaling")
STYLE = ("weight", "style_boost", "combine_embeds", *ENDS, "embeds_scaling")
SHAPE = ("weight", "composition_boost", "combine_embeds", *ENDS, "embeds_scaling")
BATCH = ("weight", "weight_type", *ENDS, "embeds_scaling", "encode_batch_size")
APPLY: dict[str, tuple[str, ...]] = {
    "IPAdapter": ("weight", *ENDS, "weight_type"),
    "IPAdapterAdvanced": PLAIN,
    "IPAdapterBatch": BATCH,
    "IPAdapterFaceID": FACE,
    "IPAAdapterFaceIDBatch": FACE,
    "IPAdapterMS": (*FACE, "layer_weights"),
    "IPAdapterClipVisionEnhancer": (*PLAIN, "enhance_tiles", "enhance_ratio"),
    "IPAdapterClipVisionEnhancerBatch": ("weight", "weight_type", *ENDS, "embeds_scaling", "enhance_tiles", "enhance_ratio", "encode_batch_size"),
    "IPAdapterPreciseStyleTransfer": STYLE,
    "IPAdapterPreciseStyleTransferBatch": STYLE,
    "IPAdapterPreciseComposition": SHAPE,
    "IPAdapterPreciseCompositionBatch": SHAPE,
    "IPAdapterStyleComposition": ("weight_style", "weight_composition", "expand_style", "combine_embeds", *ENDS, "embeds_scaling"),
    "IPAdapterStyleCompositionBatch": ("weight_style", "weight_composition", "expand_style", *ENDS, "embeds_scaling"),
    "IPAdapterTiled": ("weight", "weight_type", "combine_embeds", *ENDS, "sharpening", "embeds_scaling"),
    "IPAdapterTiledBatch": ("weight", "weight_type", *ENDS, "sharpening", "embeds_scaling", "encode_batch_size"),
    "IPAdapterEmbeds": ("weight", "weight_type", *ENDS, "embeds_scaling"),
    "IPAdapterFromParams": ("combine_embeds", "embeds_scaling"),
}  # fmt: skip
"""MODEL -> MODEL with image prompts: widgets in order."""
LOADERS: dict[str, tuple[str, ...]] = {
    "IPAdapterUnifiedLoader": ("preset",),
    "IPAdapterUnifiedLoaderFaceID": ("preset", "lora_strength", "provider"),
    "IPAdapterUnifiedLoaderCommunity": ("preset",),
    "IPAdapterModelLoader": ("ipadapter_file",),
}
HELPERS: dict[str, tuple[str, ...]] = {
    "IPAdapterRegionalConditioning": ("image_weight", "prompt_weight", "weight_type", *ENDS),
    "IPAdapterCombineParams": (),
    "IPAdapterEncoder": ("weight",),
    "IPAdapterCombineEmbeds": ("method",),
    "IPAdapterLoadEmbeds": ("embeds",),
    "IPAdapterSaveEmbeds": ("filename_prefix",),
    "IPAdapterNoise": ("type", "strength", "blur"),
    "IPAdapterWeights": (
        "weights",
        "timing",
        "frames",
        "start_frame",
        "end_frame",
        "add_starting_frames",
        "add_ending_frames",
        "method",
    ),
    "PrepImageForClipVision": ("interpolation", "crop_position", "sharpening"),
}
WIDGETS = {**APPLY, **LOADERS, **HELPERS}
LEFT = {
    **dict.fromkeys(
        (
            "IPAdapterEmbedsBatch", "IPAdapterWeightsFromStrategy", "IPAdapterPromptScheduleFromWeightsStrategy",
            "IPAdapterCombineWeights",
        ),
        "weights and embeds of single frames",
    ),
    "IPAdapterFaceIDKolors": "Kolors",
}  # fmt: skip
"""Nodes that stay, and what they do that has no counterpart."""


def is_theirs(kind: str, among: Iterable[str] = (*WIDGETS, *LEFT)) -> bool:
    """Whether a kind of node belongs to IPAdapter_plus."""
    return kind in among
