"""FastComposer's published layout of FFHQ: `00012/00012345.jpg`, `.npy` (segmentation) and `.json` (caption, words of the segments).

Licence of that data: NVIDIA's FFHQ package is CC BY-NC-SA 4.0; adapters trained on it are not for commercial use.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from ...formats.errors import printable
from .listing import files_below
from .pictures import BadPicture, Caption, MaskFile, PictureFolder, PictureSubject, Remark, TrainingPicture

LIST = "image_ids_train.txt"
MOST_SUBJECTS = 4


def is_fastcomposer(root: Path) -> bool:
    """Whether the folder has FastComposer's list of training pictures."""
    return (root / LIST).is_file()


def read_fastcomposer(root: Path) -> PictureFolder:
    """All pictures of the training list, and what is left out and why."""
    reading = PictureFolder()
    readable = set(files_below(root, reading))
    others = readable.copy()
    for name in (root / LIST).read_text(encoding="utf-8", errors="replace").split():
        path = root / name[:5] / f"{name}.jpg"
        own = {path.with_suffix(suffix) for suffix in (".jpg", ".npy", ".json")} & others
        others -= own
        try:
            check_listed([path.with_suffix(".json")], readable)
            picture = read_fastcomposer_picture(path)
            check_listed(picture.files, readable)
            reading.pictures.append(picture)
        except BadPicture as reason:
            reading.dropped.append(Remark(path, str(reason), len(own)))
    if others:
        reading.unused.append(Remark(root, f"not on the list: files of pictures that are not in {LIST}", len(others)))
    return reading


def check_listed(files: Iterable[Path], readable: Collection[Path]) -> None:
    """Raises: BadPicture when one is not an ordinary file below the folder: a name of the list may be a path that leads out."""
    for path in files:
        if path not in readable:
            raise BadPicture(f"missing file: {printable(path.name)} (not an ordinary file in the folder)")


def read_fastcomposer_picture(path: Path) -> TrainingPicture:
    """One picture; its people are the segments with COCO's label `person`, at most four.

    Raises: BadPicture.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        caption: Any = record["caption"]
        people = [s for s in record["segments"] if s["coco_label"] == "person"][:MOST_SUBJECTS]
        ends = tuple(int(s["end"]) for s in people)
        if not isinstance(caption, str) or not all(0 < end <= len(caption) for end in ends):
            raise ValueError("its caption is not a text that contains the ends of the segments")
        subjects = tuple(PictureSubject(MaskFile(path.with_suffix(".npy"), int(s["id"]))) for s in people)
    except (ArithmeticError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise BadPicture(f"malformed json: {path.stem}.json ({printable(repr(error))})") from error
    if not subjects:
        raise BadPicture(f"no person: no segment has the label 'person', caption '{caption}'")
    return TrainingPicture(path, path.with_suffix(".json"), (Caption(caption, ends),), subjects)
