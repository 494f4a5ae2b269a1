"""The cache of a folder's pictures and its batches, for the adapter that is trained."""

from __future__ import annotations

import os
from pathlib import Path

from ....moa_attention.adapters.base import Adapter
from ....moa_attention.training.cache.building import Progress, build_cache
from ....moa_attention.training.cache.entries import CachedPictures, CacheSettings
from ....moa_attention.training.cache.sharing import CacheShare
from ....moa_attention.training.config import PictureConfig, TrainConfig
from ....moa_attention.training.data.examples import CachedExamples
from ....moa_attention.training.data.pictures import PictureFolder
from .encoders import HostEncoders

MOST_THREADS = 16
"""Threads of a process that prepare pictures (ours; measured with one and two)."""


def encode_pictures(
    pictures: PictureFolder,
    adapter: Adapter,
    encoders: HostEncoders,
    settings: PictureConfig,
    cache: Path,
    progress: Progress,
    share: CacheShare | None = None,
) -> CachedPictures:
    """Encode what is not yet in the folder `cache`, with a thread for each core.

    Raises: ValueError when no picture can be trained on; LostProcess when another process of the run ended.
    """
    views = 0 if adapter.encoder is not None else settings.views
    wanted = CacheSettings(settings.side, views, settings.augmentation)
    return build_cache(pictures, encoders, wanted, cache, progress, preparing_threads(), share)


def preparing_threads() -> int:
    """A thread for each core that is left to this process beside the others of its run on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    neighbours = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MOST_THREADS, cores // neighbours))


def cached_examples(
    cached: CachedPictures, adapter: Adapter, encoders: HostEncoders, settings: PictureConfig, config: TrainConfig
) -> CachedExamples:
    """Batches of the cached pictures, on the device of the model."""
    side = encoders.side if adapter.encoder is not None else None
    empty, device = encoders.text("", []), encoders.model.load_device
    return CachedExamples(cached.entries, empty, config, settings.augmentation, side, device)
