"""What `plan` states about the whole run: steps an epoch, epochs, cache and states on the disk, cards that are large enough."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ...moa_attention.training.base import Batch
from ...moa_attention.training.config import TrainConfig
from ...moa_attention.training.data.fastcomposer import LIST, is_fastcomposer
from ...moa_attention.training.data.listing import list_folder
from ...moa_attention.training.data.pictures import PictureFolder
from .settings import Settings

SIZES = (8, 12, 16, 24, 48, 80)
"""GiB of usual cards."""


def count_pictures(folder: Path) -> int:
    """The pictures of a folder by their names, as many as can be trained on at most."""
    if is_fastcomposer(folder):
        return len((folder / LIST).read_text(encoding="utf-8", errors="replace").split())
    return len(list_folder(folder, PictureFolder()))


def bytes_of_picture(batch: Batch, settings: Settings) -> int:
    """Of a cached picture with one subject and one caption.

    Args: batch: of the run's shapes.
    """
    channels, height, width = batch.latents.shape[1:]
    context, pooled = batch.context[0].numel(), 0 if batch.pooled is None else batch.pooled.shape[-1]
    reference = batch.references[0, 0].numel()
    if batch.references.ndim > 3:  # a cut-out of twice the side with its transparency, in bytes
        reference = 4 * 4 * (reference // 3)
    else:
        reference *= 2 * settings.data.views
    return 2 * (channels * height * width + context + pooled) + height * width + reference


def course(settings: Settings, batch: Batch, cards: int) -> Iterator[str]:
    """Epochs and disk, where the folders of pictures exist and hold no archives.

    Args:
        batch: of the run's shapes.
        cards: that share every step.
    """
    folders, train = {Path(each.folder): each.repeats for each in settings.data.datasets}, settings.train
    for folder in folders:
        if not folder.is_dir():
            yield f"There is no folder of pictures {folder.resolve()} yet, so that epochs and disk are not planned."
            return
        if list(folder.glob("*.tar")):
            yield f"The folder {folder.resolve()} holds archives, so that epochs and disk are not planned."
            return
    counts = {folder: count_pictures(folder) for folder in folders}
    pictures = sum(counts.values())
    trained = max(1, sum(counts[folder] * repeats for folder, repeats in folders.items()) - settings.data.held_out)
    shared = f", {train.batch_size // cards} on each of {cards} cards" if cards > 1 else ""
    yield (
        f"{pictures:,} pictures: an epoch is {trained / train.batch_size:,.1f} steps of {train.batch_size} pictures{shared}; "
        f"{train.steps:,} steps are {train.steps * train.batch_size / trained:,.1f} epochs."
    )
    size = bytes_of_picture(batch, settings)
    yield (
        f"The cache takes about {pictures * size / 2**30:.2f} GiB on the disk: {size / 1024:,.0f} KiB for a picture with one "
        "subject and one caption."
    )


def states_on_disk(train: TrainConfig, size: int) -> str:
    """The room that the states of a run take.

    Args: size: bytes of a state.
    """
    kept = train.steps // train.keep_every if train.keep_every else 0
    more = f", and {kept:,} that train.keep_every keeps" if kept else ""
    return (
        f"The states take at most {(3 + kept) * size / 2**30:.2f} GiB on the disk: the last two and the one being written{more}, "
        f"{size / 2**20:,.0f} MiB each."
    )


def fitting(totals: Sequence[tuple[str, float]]) -> str:
    """The first setting of the table with which each size of card is large enough.

    Args: totals: names of settings and GiB.
    """
    found = [(gib, next((name for name, total in totals if total <= gib), "none of these")) for gib in SIZES]
    return "Cards of " + "; ".join(f"{gib} GiB: {name}" for gib, name in found) + "."
