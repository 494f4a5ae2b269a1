"""The pictures of a run: read, said what was left out, cached."""

from pathlib import Path

from tqdm import tqdm

from ...moa_attention.training.data.cache import Cached, CacheSettings, build_cache
from ...moa_attention.training.data.layouts import read_pictures
from ...moa_attention.training.data.pictures import Reading
from .models import Loaded
from .settings import Data, Settings, SettingsError

SHOWN = 10
"""Reasons printed; all are in the report."""


def read(data: Data) -> Reading:
    """The folder in whichever of the two layouts it is.

    Raises: SettingsError when there is no such folder.
    """
    root = Path(data.folder)
    if not root.is_dir():
        raise SettingsError(f"data.folder: there is no folder {root.resolve()}.")
    return read_pictures(root, data.words)


def fill_cache(settings: Settings, loaded: Loaded, quiet: bool = False) -> Cached:
    """Read the pictures and compute what is not yet in the cache.

    Raises: SettingsError when nothing is left to train on.
    """
    reading = read(settings.data)
    embedded = loaded.adapter.encoder is not None
    wanted = CacheSettings(settings.data.side, 0 if embedded else settings.data.views, settings.data.augmentation)
    with tqdm(total=len(reading.pictures), desc="cache", unit="picture", disable=quiet) as bar:
        cached = build_cache(
            reading.pictures,
            loaded.encoders,
            wanted,
            settings.output / "cache",
            lambda done, _: bar.update(done - bar.n),
        )
    dropped = [*reading.dropped, *cached.dropped]
    report = "".join(f"{path}: {reason}\n" for path, reason in dropped)
    (settings.output / "left_out.txt").write_text(report, encoding="utf-8")
    if not quiet:
        print(f"{len(cached.entries)} pictures to train on, {len(dropped)} left out")
        print("".join(f"  {line}\n" for line in report.splitlines()[:SHOWN]), end="")
        if len(dropped) > SHOWN:
            print(f"  ... all of them in {settings.output / 'left_out.txt'}")
    if not cached.entries:
        raise SettingsError(
            f"Nothing to train on in {settings.data.folder}; {settings.output / 'left_out.txt'} says why."
        )
    return cached
