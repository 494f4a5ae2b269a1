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

    Raises: ValueError when nothing is left to train on.
    """
    reading, data = read(settings.data), settings.data
    wanted = CacheSettings(data.side, 0 if loaded.adapter.encoder is not None else data.views, data.augmentation)
    with tqdm(total=len(reading.pictures), desc="cache", unit="picture", disable=quiet) as bar:
        cached = build_cache(
            reading, loaded.encoders, wanted, settings.output / "cache", lambda done, _: bar.update(done - bar.n)
        )
    report = settings.output / "left_out.txt"
    report.write_text(cached.report() + "\n", encoding="utf-8")
    if not quiet:
        lines = cached.report().splitlines()
        more = [f"... all of them in {report}"] if len(lines) > SHOWN + 1 else []
        print("\n  ".join([*lines[: SHOWN + 1], *more]))
    return cached
