"""The frozen models of a run, loaded by the host, and the adapter that is trained beside them."""

from pathlib import Path
from typing import Any, NamedTuple

import comfy.clip_vision
import comfy.model_sampling
import comfy.sd
import comfy.utils
import torch

from ...moa_attention.formats.adapter import load_adapter
from ...nodes.host.files.adapters import open_adapter
from ...nodes.host.files.folders import WEIGHTS
from ...nodes.host.files.mini_files import load_mini
from ...nodes.host.training.encoders import HostEncoders
from ...nodes.host.training.trainable import LoadedModels, models_for_routers, trainable_adapter
from ...nodes.sockets import LoadedAdapter
from .checks import check_files, check_start_file
from .settings import MINI, ModelSettings, Settings


class FrozenModels(NamedTuple):
    """The base model as the host's loaders return it."""

    model: Any
    clip: Any
    vae: Any
    vision: Any | None
    """CLIP vision model."""


def load_frozen(models: ModelSettings) -> FrozenModels:
    """Load the files that are named.

    Raises: SettingsError when one does not exist; the host's errors for files it cannot read.
    """
    check_files(models)
    if models.checkpoint == MINI:
        model, clip, vae = load_mini(WEIGHTS / "mini")
    else:
        options = {"dtype": torch.float8_e4m3fn} if models.weights == "fp8" else {}
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(models.checkpoint, model_options=options)
    if models.prediction != "checkpoint":
        model = predicting(model, models)
    if models.vae:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(models.vae, safe_load=True))
    return FrozenModels(model, clip, vae, comfy.clip_vision.load(models.clip_vision) if models.clip_vision else None)


def predicting(model: Any, models: ModelSettings) -> Any:
    """A clone of the base model that predicts noise or v, as the host's node ModelSamplingDiscrete makes it."""
    kind = comfy.model_sampling.V_PREDICTION if models.prediction == "v" else comfy.model_sampling.EPS
    sampling = type("Sampling", (comfy.model_sampling.ModelSamplingDiscrete, kind), {})
    changed = model.clone()
    changed.add_object_patch("model_sampling", sampling(model.model.model_config, zsnr=models.zero_snr))
    return changed


def load_models(settings: Settings) -> LoadedModels:
    """Load everything the settings name.

    Raises: ValueError when no image encoder is named; the host's errors for files it cannot read.
    """
    frozen, wanted = load_frozen(settings.models), settings.adapter
    if settings.train.only_routers:
        return load_expert(settings, frozen)
    encoders = HostEncoders(*frozen)
    start = load_adapter(Path(wanted.start)) if wanted.start else None
    adapter = trainable_adapter(
        frozen.model, encoders, settings.models.clip_vision_name, start, settings.train.seed, rank=wanted.rank,
        router=wanted.router, image_tokens=wanted.image_tokens, output_projection=wanted.output_projection,
    )  # fmt: skip
    return LoadedModels(encoders, adapter, "")


def load_expert(settings: Settings, frozen: FrozenModels) -> LoadedModels:
    """For `train.only_routers`: the adapter in adapter.start, of any kind, with new routers.

    Raises: ValueError when none is named, or as `models_for_routers`.
    """
    wanted = settings.adapter
    check_start_file(settings)
    patcher, _ = open_adapter(Path(wanted.start))
    return models_for_routers(*frozen, LoadedAdapter(patcher, wanted.start, patcher.model.identity), wanted.router)
