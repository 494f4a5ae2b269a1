"""The frozen models of a run, loaded by the host, and the adapter that is trained beside them."""

from pathlib import Path
from typing import Any, NamedTuple

import comfy.clip_vision
import comfy.sd
import comfy.utils

from ...moa_attention.checkpoint import load_adapter
from ...moa_attention.fitted import Expert, expert_name
from ...nodes.adapter_files import open_adapter
from ...nodes.encoders import HostEncoders
from ...nodes.folders import WEIGHTS
from ...nodes.load import encoder_identity
from ...nodes.mini import load_mini
from ...nodes.sockets import Adapter
from ...nodes.training import trainable_adapter, with_neutral_routers
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
    adapter: Expert
    expert: str
    """`expert_name` of a frozen expert whose routers alone are trained; empty otherwise."""


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
    if settings.train.only_routers:
        return load_expert(settings, Frozen(model, clip, vae, vision))
    encoders = HostEncoders(model, clip, vae, vision)
    start = load_adapter(wanted.start) if wanted.start else None
    options = {"rank": wanted.rank, "router": wanted.router, "output_projection": wanted.output_projection}
    adapter = trainable_adapter(model, encoders, models.clip_vision_name, start, settings.train.seed, **options)
    return Loaded(model, clip, vae, encoders, adapter, "")


def load_expert(settings: Settings, frozen: Frozen) -> Loaded:
    """For `train.only_routers`: the adapter to start from, of whatever kind, with new routers.

    Raises: SettingsError when none is named, or it sees through what no folder of pictures holds.
    """
    wanted = settings.adapter
    if not Path(wanted.start).is_file():
        raise SettingsError(f"train.only_routers fits routers to adapter.start, and there is no file '{wanted.start}'.")
    patcher, header = open_adapter(Path(wanted.start))
    module = patcher.model
    if "face" in getattr(module, "sees", {}):
        raise SettingsError(f"'{wanted.start}' sees through face embeddings, of which a folder of pictures has none.")
    if module.encoder is None and frozen.vision is None:
        raise SettingsError(
            f"'{wanted.start}' sees through {header.config.image_encoder}: name it in models.clip_vision."
        )
    seen_by = None if module.encoder is not None else Adapter(patcher, wanted.start, encoder_identity(module))
    encoders = HostEncoders(*frozen, adapter=seen_by)
    return Loaded(*frozen[:3], encoders, with_neutral_routers(module, wanted.router), expert_name(module))
