"""The part of caching that needs no model: pictures are read, framed and augmented, in several threads at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ..data.augment import augment, cut_out
from ..data.framing import LoadedPicture, load_picture
from ..data.pictures import BadPicture, TrainingPicture
from ..lots import generator_for
from .entries import CacheSettings

AHEAD = 2
"""Pictures for each thread that are prepared before they are needed."""
Item = TypeVar("Item")
Made = TypeVar("Made")


class PreparedPicture(NamedTuple):
    """A picture that is ready for the encoders."""

    image: Tensor
    """(3,h,w) in [0,1]"""
    masks: Tensor
    """(S,h/scale,w/scale) uint8"""
    references: list[Tensor]
    """Of each subject: its views (V,3,side,side) in [0,1], or its cut-outs (K,4,2·side,2·side) as uint8."""
    warnings: list[str]


def prepare_picture(
    picture: TrainingPicture, settings: CacheSettings, side: int, scale: int
) -> PreparedPicture | BadPicture:
    """Read, frame and augment a picture. A picture that cannot be trained on is returned as its error.

    Args: side, scale: of the encoders.
    """
    try:
        loaded = load_picture(picture, settings.side)
        height, width = loaded.framed.image.shape[1:]
        grid = (height // scale, width // scale)
        masks = torch.nn.functional.interpolate(loaded.framed.masks[None], size=grid, mode="area")[0]
        subjects = range(len(picture.subjects))
        if settings.views:
            references = [draw_views(picture, loaded, number, side, settings) for number in subjects]
        else:
            references = [(cut_subject(loaded, number, side) * 255).round().byte() for number in subjects]
    except BadPicture as reason:
        return reason
    return PreparedPicture(loaded.framed.image, (masks * 255).round().byte(), references, loaded.warnings)


def cut_subject(loaded: LoadedPicture, number: int, side: int) -> Tensor:
    """A subject with its transparency, out of each of its reference pictures: -> (K,4,2·side,2·side) in [0,1]."""
    return torch.stack([cut_out(*pair, 2 * side) for pair in loaded.references[number]])


def draw_views(
    picture: TrainingPicture, loaded: LoadedPicture, number: int, side: int, settings: CacheSettings
) -> Tensor:
    """The augmented references of a subject whose features are cached, the same in every call: -> (V,3,side,side)."""
    cutouts, generator = cut_subject(loaded, number, side), generator_for("views", picture.path.name, number)
    views = range(settings.views)
    return torch.stack([augment(cutouts[v % len(cutouts)], side, settings.augmentation, generator) for v in views])


def in_threads(
    function: Callable[[Item], Made], items: Iterable[Item], threads: int
) -> Generator[tuple[Item, Made], None, None]:
    """Every item with its result, in their order; up to `AHEAD` results for each thread are computed beforehand.

    Decoding and PyTorch's operations release Python's lock, so that threads use as many cores. Without threads the
    results are computed when they are asked for.
    """
    if not threads:
        yield from ((item, function(item)) for item in items)
        return
    waiting: deque[tuple[Item, Future[Made]]] = deque()
    items = iter(items)
    with single_threaded_pool(threads) as pool:
        waiting.extend((item, pool.submit(function, item)) for item in islice(items, AHEAD * threads))
        while waiting:
            item, future = waiting.popleft()
            result = future.result()
            waiting.extend((item, pool.submit(function, item)) for item in islice(items, 1))
            yield item, result


@contextmanager
def single_threaded_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads in which PyTorch uses one core each. What has not begun when the block ends is not done."""
    cores = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # the setting of a thread is also that of all threads that begin later
