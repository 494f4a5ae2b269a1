"""MoA Mini: a small model of our own, built from the host's own classes.

The host recognises checkpoints by the widths of famous models, so a small one cannot pass its stock loaders. Its
classes take any width, though: `mini_files.load_mini` gives the same three objects that CheckpointLoaderSimple would, and
every node of the host works with them.
"""

from collections.abc import Sequence

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.taesd.taesd import TAESD

TEXT_CONFIG = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "projection_dim": 128,
}
PIXELS = 8
"""Of the picture's side, for one latent pixel."""
USUAL = 1.5
"""Up to which factor a side may differ from that of the training pictures without a note."""
HEAD = 32
"""Width of an attention head."""
NOISIEST_BETA = 0.0224
"""End of the noise schedule, at a noise level of 103.

The usual 0.012 ends at 14.6. There the mean colour of a picture, whose deviation over the 16 x 16 latent pixels together is 25,
can still be seen in training, but in sampling it is noise, which the model takes for the picture's layout.
"""
UNET_CONFIG = {
    "image_size": 16,
    "in_channels": 32,
    "out_channels": 32,
    "model_channels": 64,
    "channel_mult": [1, 2, 2],
    "num_res_blocks": [1, 1, 1],
    "transformer_depth": [1, 1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1, 1, 1],
    "context_dim": 128,
    "use_spatial_transformer": True,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "use_temporal_resblock": False,
}


class MiniLatent(comfy.latent_formats.LatentFormat):
    """32 channels at an eighth of the picture: principal components of 8 x 8 patches.

    They have unit variance in the U-Net; the autoencoder's side is smaller, because it clamps softly at 3.
    """

    latent_channels = 32
    scale_factor = 2.5


class Mini(comfy.supported_models_base.BASE):
    """What the host must know of the U-Net: v-prediction on `MiniLatent`, attention heads 32 wide."""

    unet_config = UNET_CONFIG
    unet_extra_config = {"num_heads": -1, "num_head_channels": HEAD}
    latent_format = MiniLatent
    sampling_settings = {"linear_end": NOISIEST_BETA}
    custom_operations: type | None = None

    def model_type(self, state_dict: dict[str, torch.Tensor], prefix: str = "") -> comfy.model_base.ModelType:
        return comfy.model_base.ModelType.V_PREDICTION

    def inpaint_model(self) -> bool:
        """More than four input channels are not an inpainting model's here."""
        return False


def unusual_size(config: object, shape: Sequence[int]) -> list[str]:
    """A note for users where latents (B,C,h,w) for MoA Mini have another size than those of its training; none for other models."""
    side = UNET_CONFIG["image_size"]
    if not isinstance(config, Mini) or all(side / USUAL <= length <= side * USUAL for length in shape[-2:]):
        return []
    trained, height, width = (PIXELS * length for length in (side, *shape[-2:]))
    return [
        f"MoA Mini was trained with pictures of {trained} × {trained} pixels; this run has {width} × {height}. Set 'Empty Latent "
        f"Image' to {trained} × {trained}."
    ]


def build_unet(width: int, operations: type | None = None) -> comfy.model_base.BaseModel:
    """The host's `BaseModel` around a MoA Mini U-Net in fp32, without weights.

    Args:
        width: channels of its first stage, a multiple of 32.
        operations: in the place of the host's choice.
    """
    config = Mini({**UNET_CONFIG, "model_channels": width})
    config.set_inference_dtype(torch.float32, None)
    config.custom_operations = operations
    return config.get_model({})


def build_text_model(operations: type | None = None) -> comfy.sd1_clip.SD1ClipModel:
    """The host's SD1 text encoder at MoA Mini's width, with whatever is in memory for weights."""
    options: dict[str, object] = {"clip_l_model_config": TEXT_CONFIG}
    if operations is not None:
        options["custom_operations"] = operations
    return comfy.sd1_clip.SD1ClipModel(device="cpu", dtype=torch.float32, model_options=options)


def build_autoencoder() -> TAESD:
    """The host's tiny autoencoder with 32 latent channels, with whatever is in memory for weights.

    It has no normalisation layers, which at this width would wash out the flat colours of drawings.
    """
    return TAESD(latent_channels=MiniLatent.latent_channels)
