"""The files that a run makes of its weights: an adapter, or routers for an adapter that was not changed."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from ...moa_attention.adapters.base import Adapter
from ...moa_attention.adapters.moa import MoAAdapter
from ...moa_attention.formats.adapter import save_adapter
from ...moa_attention.formats.fingerprint import file_sha256
from ...moa_attention.formats.routers import save_routers
from ...moa_attention.training.datasets.config import DatasetConfig
from ...moa_attention.training.saved.settings import read_run
from .run_files import STATE, result_file
from .settings import MINI, Settings


def write_result(
    settings: Settings, trained: Adapter, expert: str, pictures: int | None, step: int, variant: str = ""
) -> str:
    """Write the weights of a step. Returns: a sentence on the file and its use.

    Args:
        expert: `LoadedModels.expert`.
        pictures: how many were trained on; None where that is not known.
        variant: as in `result_file`.
    """
    origin, licence = training_provenance(settings, pictures, step), licences(settings)
    path = result_file(settings, variant)
    if settings.train.only_routers:
        save_routers(trained, path, expert=expert, licence=licence, provenance=origin)
        return (
            f"The routers are in {path}. Put this file into ComfyUI's models/moa/routers and choose it as router_file in "
            "'Load MoA Adapter'."
        )
    assert isinstance(trained, MoAAdapter)
    save_adapter(trained, path, licence=licence, provenance=origin, dtype=torch.float16)
    return f"The adapter is in {path}. Put this file into ComfyUI's models/moa."


def training_provenance(settings: Settings, pictures: int | None, step: int) -> dict[str, Any]:
    """Base model, data and settings of the training, for the adapter file."""
    checkpoint, stored = Path(settings.models.checkpoint), read_run(settings.output / STATE)
    return {
        "base": checkpoint.name,
        "base_sha256": "" if settings.models.checkpoint == MINI else checkpoint_hash(checkpoint),
        "data": "; ".join(each.description for each in settings.data.datasets if each.description),
        "data_licence": licences(settings),
        "folders": [folder_record(each) for each in settings.data.datasets],
        **({} if pictures is None else {"pictures": pictures}),
        "step": step,
        "config": vars(settings.train),
        "changes": stored.changes if stored is not None else [],
    }


def licences(settings: Settings) -> str:
    """The licences of all folders, each once."""
    return "; ".join(dict.fromkeys(each.licence for each in settings.data.datasets))


def folder_record(dataset: DatasetConfig) -> dict[str, Any]:
    """A folder in the provenance, by its name: its place on the disk is private."""
    kept = ("licence", "description", "repeats", "weight")
    return {"folder": Path(dataset.folder).resolve().name, **{name: getattr(dataset, name) for name in kept}}


@cache
def checkpoint_hash(path: Path) -> str:
    """The SHA-256 of a checkpoint, which takes seconds, once in a process."""
    return file_sha256(path)
