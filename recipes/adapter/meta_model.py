"""The models of a run on PyTorch's `meta` device, with shapes but no contents, and the footprint of one step with them."""

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import comfy.model_detection
import comfy.model_patcher
import torch
from safetensors import safe_open

from ...moa_attention.adapters.vision import ImageEncoder
from ...moa_attention.formats.adapter import read_header
from ...moa_attention.formats.tensors import open_stored
from ...moa_attention.method.spec import EMBEDDED_ENCODER
from ...moa_attention.training.base import Batch
from ...moa_attention.training.footprint import Footprint, footprint
from ...moa_attention.training.objective import Objective
from ...nodes.host.files.folders import WEIGHTS
from ...nodes.host.files.mini_files import unet_config
from ...nodes.host.model.layers import fresh_adapter
from ...nodes.host.model.mini import Mini
from ...nodes.host.model.patch import host_patcher
from ...nodes.host.model.unet import unet_of
from ...nodes.host.training.base import HostBase, checkpointed
from .settings import MINI, ModelSettings, Settings, SettingsError

META = torch.device("meta")
TOKENS, SUBJECTS, CLIP_WIDTH = 77, 2, 768
PREFIX = "model.diffusion_model."


def model_config(checkpoint: str) -> Any:
    """The host's configuration for the U-Net in a checkpoint, of which only the header is read.

    Raises: SettingsError when the file holds no U-Net that the host supports.
    """
    if checkpoint == MINI:
        return Mini(unet_config(open_stored(WEIGHTS / "mini" / "unet.safetensors")))
    try:
        with safe_open(checkpoint, framework="pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:
        raise SettingsError(f"models.checkpoint: {checkpoint} cannot be read: {error}") from error
    weights = {key: torch.empty(shape, device=META) for key, shape in shapes.items()}
    config = comfy.model_detection.model_config_from_unet(weights, PREFIX)
    if config is None:
        raise SettingsError(
            f"models.checkpoint: ComfyUI does not recognise the model in {checkpoint}. Use an SD1.5 or SDXL checkpoint."
        )
    return config


def meta_model(models: ModelSettings) -> Any:
    """The U-Net as the host builds it, without contents and computed in float32: -> ModelPatcher."""
    config = model_config(models.checkpoint)
    if models.weights == "fp8":
        config.set_inference_dtype(torch.float8_e4m3fn, torch.float32)
    else:
        config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, PREFIX, device=META).to(META)
    return comfy.model_patcher.ModelPatcher(model.eval().requires_grad_(False), load_device=META, offload_device=META)


def meta_batch(model: Any, settings: Settings, image_width: int, embedded: bool) -> Batch:
    """One micro-batch without contents.

    Args: embedded: whether the adapter has its own image encoder.
    """
    config, unet = settings.train, model.model.model_config.unet_config
    rows, side = config.micro_batch or config.batch_size, settings.data.side // 8
    slots = torch.zeros(rows, TOKENS, dtype=torch.long)
    slots[:, 4], slots[:, 9] = 1, 2

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=META)

    picture = ImageEncoder.picture
    adm = unet.get("adm_in_channels")
    return Batch(
        latents=empty(rows, model.model.latent_format.latent_channels, side, side),
        context=empty(rows, TOKENS, unet["context_dim"]),
        slots=slots,
        references=empty(rows, SUBJECTS, *((3, picture, picture) if embedded else (image_width,))),
        masks=empty(rows, SUBJECTS, side, side),
        pooled=torch.zeros(rows, adm - 6 * 256) if adm else None,  # the host appends six embedded numbers of its own
    )


def planned_batch(settings: Settings) -> Batch:
    """One micro-batch of the run, without contents.

    Raises: SettingsError as `model_config`.
    """
    embedded = settings.models.checkpoint == MINI
    bundled = read_header(WEIGHTS / "mini" / "adapter.safetensors").config
    width = bundled.image_width if embedded else CLIP_WIDTH
    return meta_batch(meta_model(settings.models), settings, width, embedded)


def estimate(settings: Settings, fused: bool) -> Footprint:
    """The footprint of one optimiser step. On a CPU the base model stays in 32 bits, whatever the precision.

    Args: fused: as in `footprint`; false for a CPU.
    Raises: SettingsError as `model_config`.
    """
    model, chosen = meta_model(settings.models), settings.adapter
    embedded = settings.models.checkpoint == MINI
    bundled = read_header(WEIGHTS / "mini" / "adapter.safetensors").config
    width = bundled.image_width if embedded else CLIP_WIDTH
    with META:
        adapter = fresh_adapter(
            model, EMBEDDED_ENCODER if embedded else settings.models.clip_vision_name, width, rank=chosen.rank,
            router=chosen.router, image_tokens=chosen.image_tokens, output_projection=chosen.output_projection,
        )  # fmt: skip
    base = HostBase(model, host_patcher(adapter))
    batch = meta_batch(model, settings, width, embedded)
    with checkpointed(model.model) if settings.train.checkpointing else nullcontext():
        found = footprint(Objective(adapter, base, settings.train), unet_of(model.model), batch, settings.train, fused)
    if not fused or settings.train.precision != "bfloat16":
        return found
    half = found.in_bfloat16()
    return replace(half, base=found.base) if settings.models.weights == "fp8" else half
