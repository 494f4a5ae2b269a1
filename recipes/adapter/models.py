"""The frozen models of a run, loaded by the host, and the adapter that is trained beside them."""

from pathlib import Path
from typing import Any, NamedTuple

import comfy.clip_vision
import comfy.sd
import comfy.utils

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.checkpoint import load_adapter
from ...nodes.encoders import HostEncoders
from ...nodes.folders import WEIGHTS
from ...nodes.mini import load_mini
from ...nodes.training import trainable_adapter
from .settings import MINI, Models, Settings, SettingsError


class Frozen(NamedTuple):
    """The base model as the host's loaders give it."""

    model: Any
    clip: Any
    vae: Any
    vision: Any | None
    """CLIP vision model."""


class Loaded(NamedTuple):
    """What a run works with."""

    model: Any
    clip: Any
    vae: Any
    encoders: HostEncoders
    adapter: MoAAdapter


def load_frozen(models: Models) -> Frozen:
    """Load the files that are named.

    Raises: SettingsError when one is not there; what the host raises for files it cannot read.
    """
    for name in ("checkpoint", "vae", "clip_vision"):
        file = getattr(models, name)
        if file and file != MINI and not Path(file).is_file():
            raise SettingsError(f"models.{name}: there is no file {Path(file).resolve()}.")
    if models.checkpoint == MINI:
        model, clip, vae = load_mini(WEIGHTS / "mini")
    else:
        model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(models.checkpoint)
    if models.vae:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(models.vae, safe_load=True))
    return Frozen(model, clip, vae, comfy.clip_vision.load(models.clip_vision) if models.clip_vision else None)


def load(settings: Settings) -> Loaded:
    """Load everything the settings name; the adapter is in float32.

    Raises: ValueError when nothing says how the adapter is to see; what the host raises for files it cannot read.
    """
    models, wanted = settings.models, settings.adapter
    model, clip, vae, vision = load_frozen(models)
    encoders = HostEncoders(model, clip, vae, vision)
    start = load_adapter(wanted.start) if wanted.start else None
    options = {"rank": wanted.rank, "router": wanted.router, "output_projection": wanted.output_projection}
    adapter = trainable_adapter(model, encoders, models.clip_vision_name, start, settings.train.seed, **options)
    return Loaded(model, clip, vae, encoders, adapter)
