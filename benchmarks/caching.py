"""Pictures a second into the cache of a training run, with MoA Mini's encoders: one process, and two, with a core each.

Linux only. The pictures are JPEG files of 1024 × 1024 pixels with a mask and a caption each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..moa_attention.training.cache.entries import CachedPictures
from ..moa_attention.training.cache.sharing import CacheShare
from ..moa_attention.training.data.folder import read_pictures
from ..nodes.host.training.data import encode_pictures
from ..recipes.adapter.models import load_models
from ..recipes.adapter.settings import MINI, Settings, read_settings

SIDE = 1024
"""Pixels of a picture's side."""


def draw_pictures(folder: Path, count: int) -> None:
    """Smooth colours with a little noise, which JPEG stores in about half a megabyte; an ellipse for the subject."""
    for number in range(count):
        chance = np.random.default_rng(number)
        smooth = Image.fromarray(chance.integers(0, 256, (48, 48, 3), np.uint8)).resize(
            (SIDE, SIDE), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(smooth) + chance.normal(0, 4, (SIDE, SIDE, 1))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg", quality=92)
        mask = Image.new("L", (SIDE, SIDE))
        ImageDraw.Draw(mask).ellipse((300, 200, 700, 900), fill=255)
        mask.save(folder / f"{number:04}.mask1.png")
        (folder / f"{number:04}.txt").write_text("a woman on a beach")


def settings_of(folder: Path) -> Settings:
    """Of a run on the pictures in `folder`."""
    config = folder.with_suffix(".toml")
    config.write_text(
        f'''
        output = "{folder.parent.as_posix()}"
        models.checkpoint = "{MINI}"
        data = {{ folder = "{folder.as_posix()}", licence = "CC0-1.0", side = 128 }}
        train.steps = 1
        '''
    )
    return read_settings(config)


def fill_cache_part(
    settings: Settings, share: CacheShare, core: int, ready: Barrier, spent: Queue[tuple[float, float]]
) -> None:
    """In a process of its own, on one core: fill its part of the cache when all processes are `ready`."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    loaded, pictures = load_models(settings), read_pictures(Path(settings.data.folder))
    loaded.encoders.text("a man", [5])  # the first call of a model takes longer
    ready.wait()
    began, computed, cache = time.monotonic(), time.process_time(), settings.output / f"cache{share.count}"
    cached: CachedPictures = encode_pictures(
        pictures, loaded.adapter, loaded.encoders, settings.data, cache, lambda *_: None, share
    )
    assert len(cached.entries) == len(pictures.pictures)
    spent.put((time.monotonic() - began, time.process_time() - computed))


def measure(settings: Settings, processes: int) -> tuple[float, float]:
    """Seconds until the cache is full, and those of all cores together that the processes computed."""
    context = multiprocessing.get_context("fork")
    spent, cores = context.Queue(), sorted(os.sched_getaffinity(0))
    ready, run = context.Barrier(processes), f"run{time.time()}"
    made = [
        context.Process(
            target=fill_cache_part, args=(settings, CacheShare(rank, processes, run), cores[rank], ready, spent)
        )
        for rank in range(processes)
    ]
    for process in made:
        process.start()
    for process in made:
        process.join()
    seconds, computed = zip(*(spent.get() for _ in made), strict=True)
    return max(seconds), sum(computed)


def main(argv: list[str]) -> None:
    """Print the rates."""
    parser = argparse.ArgumentParser(prog="bench-caching", description=__doc__)
    parser.add_argument("--pictures", type=int, default=256, help="drawn and cached")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        draw_pictures(folder, options.pictures)
        settings = settings_of(folder)
        for processes in (1, 2):
            seconds, computed = measure(settings, processes)
            rate, each = options.pictures / seconds, 1000 * computed / options.pictures
            print(f"processes: {processes}, pictures a second: {rate:.1f}, milliseconds of a core for each: {each:.0f}")
