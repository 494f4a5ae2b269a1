"""The files of a folder, and which of them belong to one picture by their names.

Names that begin with a dot are not read. A linked file is read if it lies in the folder itself; all other links are left
out. Every file is in one group or in one remark.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .pictures import BadPicture, PictureFolder, Remark

PICTURES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
"""Of an animation, the first frame is read."""
CAPTION, RECORDS = ".txt", (".json", ".npy")
COMPANION = re.compile(r"\.(?:mask(?P<mask>\d*)|ref(?P<reference>\d+)[a-z]*)$", re.IGNORECASE)
"""At the end of a stem: what a picture is to another one."""


@dataclass
class PictureFiles:
    """A picture and the files of its name."""

    picture: Path
    captions: list[Path] = field(default_factory=list)
    beside: list[Path] = field(default_factory=list)
    """Its masks and references, by their names."""

    @property
    def count(self) -> int:
        return 1 + len(self.captions) + len(self.beside)


def list_folder(
    root: Path, reading: PictureFolder, caption: str = CAPTION, metadata: Path | None = None
) -> list[PictureFiles]:
    """The pictures of a folder and its subfolders, in the order of their names; all other files join `reading`.

    Args: caption: suffix of caption files; empty where the file `metadata` has the captions.
    """
    names: dict[Path, list[Path]] = {}
    for path in files_below(root, reading):
        if path.suffix.lower() in (*PICTURES, caption):
            stem = path.stem if path.suffix.lower() == caption else COMPANION.sub("", path.stem)
            names.setdefault(path.with_name(stem), []).append(path)
        elif path != metadata:
            reading.unused.append(Remark(path, f"not read: neither a picture ({' '.join(PICTURES)}) nor a caption"))
    groups = []
    for name, files in names.items():
        try:
            groups.append(group(name.name, files, caption))
        except BadPicture as reason:
            reading.dropped.append(Remark(files[0], str(reason), len(files)))
        except LookupError as reason:
            reading.unused += [Remark(path, str(reason)) for path in files]
    return groups


def group(stem: str, files: list[Path], caption: str = CAPTION) -> PictureFiles:
    """The picture of a name, with its captions, masks and references.

    Raises: BadPicture when two pictures have the name; LookupError when none has.
    """
    captions = [p for p in files if p.suffix.lower() == caption]
    own = [p for p in files if p not in captions and p.stem == stem]
    if not own:
        raise LookupError("no picture: the picture that this file belongs to does not exist")
    # A .png beside a picture of another kind is its mask.
    first = min(own, key=lambda p: p.suffix.lower() == ".png")
    others = [p for p in own if p != first]
    if others and (len(others) > 1 or others[0].suffix.lower() != ".png" or first.suffix.lower() == ".png"):
        raise BadPicture(f"two pictures of one name: {' and '.join(p.name for p in own)}; rename one of them")
    return PictureFiles(first, captions, [p for p in files if p != first and p not in captions])


def files_below(root: Path, reading: PictureFolder) -> Iterator[Path]:
    """The ordinary files of a folder and its subfolders that may be read, in the order of their names.

    Counts all files of the folder in `reading`, and adds a remark on what may not be read.
    """
    pending = entries_of(root, reading)
    while pending:
        entry = pending.pop()
        path, is_folder = Path(entry.path), entry.is_dir(follow_symlinks=False)
        reading.files += not is_folder
        if entry.name.startswith("."):
            content = count_files(path) if is_folder else 0
            reading.files += content
            hidden = "hidden: names that begin with a dot are not read"
            reading.unused.append(Remark(path, hidden, content + (not is_folder)))
        elif reason := refused_link(path, root):
            reading.unused.append(Remark(path, reason, int(not is_folder)))
        elif is_folder:
            pending += entries_of(path, reading)
        elif entry.is_file():
            yield path
        else:
            reading.unused.append(Remark(path, "not read: it is not an ordinary file"))


def entries_of(folder: Path, reading: PictureFolder) -> list[os.DirEntry[str]]:
    """The entries of one folder, the last name first."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        reading.unused.append(Remark(folder, f"unreadable folder: {error.strerror}", 0))
        return []


def refused_link(path: Path, root: Path) -> str:
    """The reason why a link is not followed; empty for what is no link, and for a link to a file in `root`."""
    is_junction: Callable[[Path], bool] = getattr(os.path, "isjunction", lambda _: False)  # from Python 3.12
    if not (path.is_symlink() or is_junction(path)):
        return ""
    target = Path(os.path.realpath(path))
    if not target.exists():
        return f"link: it leads to {target}, which does not exist"
    if not target.is_relative_to(os.path.realpath(root)):
        return f"link: it leads out of the folder, to {target}; copy that here, or choose its folder"
    return "link: its files are read where they are" if target.is_dir() else ""


def count_files(folder: Path) -> int:
    """All files below a folder; a link is one file."""
    return sum(
        len(files) + sum(os.path.islink(os.path.join(at, name)) for name in folders)
        for at, folders, files in os.walk(folder)
    )


def folder_fingerprint(root: Path) -> str:
    """A hash of the names, sizes and times of pictures, captions and FastComposer's records."""
    digest = hashlib.blake2b(digest_size=8)
    for path in files_below(root, PictureFolder()):
        if path.suffix.lower() not in (*PICTURES, CAPTION, *RECORDS):
            continue
        status = path.stat()
        digest.update(os.fsencode(path.relative_to(root)))
        digest.update(f" {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
