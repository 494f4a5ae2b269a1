"""Folders of .tar files, as webdataset writes them, extracted into ordinary folders."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from pathlib import Path

from ...formats.errors import printable


def extracted(root: Path, into: Path) -> Path:
    """A folder with the content of the .tar files of `root`, each in a folder of its own; `root` where there are none.

    Archives that are extracted already are not read again.

    Args: into: the folder in which the folder is made.
    Raises: ValueError naming the archive when it is damaged, holds names that lead out of the folder, or has changed since
        it was extracted.
    """
    archives = sorted(root.glob("*.tar"))
    if not archives:
        return root
    target = into / root.resolve().name
    target.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        status = archive.stat()
        folder = target / f"{archive.stem}-{status.st_size:x}-{status.st_mtime_ns:x}"
        earlier = [path for path in target.glob(f"{archive.stem}-*-*") if path != folder]
        if earlier:
            raise ValueError(f"{archive} has changed since it was extracted. Delete {earlier[0]} to extract it again.")
        if not folder.is_dir():
            extract(archive, folder)
    return target


def extract(archive: Path, folder: Path) -> None:
    """The whole content or nothing, also where several processes do the same. Raises: ValueError as `extracted`."""
    part = Path(tempfile.mkdtemp(prefix=".part", dir=folder.parent))
    try:
        with tarfile.open(archive) as content:
            content.extractall(part, filter="data")
        if not folder.is_dir():
            part.rename(folder)
    except (tarfile.TarError, TypeError, EOFError) as error:  # TypeError: a Python before 3.10.12 has no filters
        raise ValueError(f"{archive} cannot be extracted: {printable(error)}.") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
