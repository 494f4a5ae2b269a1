"""Train an adapter: `python dev.py train config.toml`. Killed at any moment, the same command goes on where it was.

Several processes: `accelerate launch` in front of `recipes/run.py adapter.train config.toml`.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from ...moa_attention.adapter import MoAAdapter
from ...moa_attention.checkpoint import save_adapter
from ...moa_attention.fitted import Expert, save_routers
from ...moa_attention.reference import prepare_reference
from ...moa_attention.training.data.cache import Cached
from ...moa_attention.training.data.examples import CachedExamples
from ...moa_attention.training.data.pictures import read_image
from ...moa_attention.training.loop import train
from ...nodes.patch import host_patcher
from ...nodes.sheet import first_subjects
from ...nodes.training import HostBase, training_mode
from .data import fill_cache, read
from .journal import Journal
from .models import Loaded, load
from .settings import MINI, Settings, read_settings
from .workers import Accelerated, check_workers

SUBJECTS_SHOWN = 2
"""On the validation sheet, when the settings name no pictures."""


def main(argv: list[str]) -> None:
    """Read, cache, train, save."""
    parser = argparse.ArgumentParser(prog="train", description=__doc__)
    parser.add_argument("config", type=Path)
    try:
        settings = read_settings(parser.parse_args(argv).config)
        accelerator = Accelerator()
        check_workers(accelerator.distributed_type)
        if accelerator.device.type == "cpu" and settings.train.precision == "bfloat16":
            print("Most CPUs compute bfloat16 many times slower than float32: consider train.precision = 'float32'.")
        settings.output.mkdir(parents=True, exist_ok=True)
        loaded = load(settings)
        with accelerator.main_process_first():  # the first fills the cache, the others find it
            cached = fill_cache(settings, loaded, quiet=not accelerator.is_main_process)
        trained = run(settings, loaded, cached, accelerator)
    except (ValueError, OSError) as error:  # what a person can mend; anything else is our mistake
        sys.exit(f"train: {error}")
    if accelerator.is_main_process:
        save(settings, trained, loaded.expert, len(cached.entries))


def run(settings: Settings, loaded: Loaded, cached: Cached, accelerator: Accelerator) -> Expert:
    """The training itself."""
    config, adapter, model, encoders = settings.train, loaded.adapter, loaded.model, loaded.encoders
    side = encoders.side if adapter.encoder is not None else None
    null = encoders.text("", [])
    examples = CachedExamples(cached.entries, null, config, settings.data.augmentation, side, model.load_device)
    journal = open_journal(settings, loaded, cached) if accelerator.is_main_process else None
    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter.to(model.load_device)))
        try:
            return train(
                adapter, base, examples, config, settings.output / "state.safetensors", journal or silent,
                workers=Accelerated(accelerator),
            )  # fmt: skip
        finally:
            if journal is not None:
                journal.close()


def save(settings: Settings, trained: Expert, expert: str, pictures: int) -> None:
    """Write what was trained: an adapter, or routers for an expert that stayed as it was."""
    told, licence = provenance(settings, pictures), settings.data.licence
    if settings.train.only_routers:
        path = settings.output / "routers.safetensors"
        save_routers(trained, path, expert=expert, licence=licence, provenance=told)
        print(
            f"The routers are {path}. Put them into ComfyUI's models/moa/routers and choose them in Load MoA Adapter."
        )
    elif isinstance(trained, MoAAdapter):
        path = settings.output / "adapter.safetensors"
        save_adapter(trained, path, licence=licence, provenance=told, dtype=torch.float16)
        print(f"The adapter is {path}. Put it into ComfyUI's models/moa.")


def open_journal(settings: Settings, loaded: Loaded, cached: Cached) -> Journal:
    """The run's journal; its sheets show the first pictures of the data when the settings name none."""
    named, side = settings.validation.references, loaded.encoders.side
    if named:
        references = torch.cat([shown(Path(path), side) for path in named])
    else:
        references = first_subjects(read(settings.data).pictures, side, SUBJECTS_SHOWN)
    height, width = (pixels // loaded.encoders.scale for pixels in cached.entries[0].shape)
    return Journal(settings, loaded, references, (height, width))


def shown(path: Path, side: int) -> Tensor:
    """A picture of one subject, or only its opaque part: -> (1,3,side,side)."""
    pixels = read_image(path).float()[None] / 255
    return prepare_reference(pixels.movedim(1, -1), pixels[:, 3] if pixels.shape[1] == 4 else None, side)


def silent(_step: int, _numbers: dict[str, float], _averaged: Expert) -> None:
    """The other processes show nothing."""


def provenance(settings: Settings, pictures: int) -> dict[str, Any]:
    """What the adapter's file says of its making."""
    checkpoint = Path(settings.models.checkpoint)
    return {
        "base": checkpoint.name,
        "base_sha256": "" if settings.models.checkpoint == MINI else sha256(checkpoint),
        "data": settings.data.description,
        "data_licence": settings.data.licence,
        "pictures": pictures,
        "config": vars(settings.train),
    }


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
