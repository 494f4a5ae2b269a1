"""FastComposer's published layout of FFHQ: `00012/00012345.jpg`, `.npy` (who is where) and `.json` (who is which word).

Licence of that data: NVIDIA's FFHQ package is CC BY-NC-SA 4.0; what is trained on it is not for commercial use.
"""

from __future__ import annotations

import json
from pathlib import Path

from .pictures import BadPicture, Mask, Picture, Reading, Subject

LIST = "image_ids_train.txt"
MOST_SUBJECTS = 4


def is_fastcomposer(root: Path) -> bool:
    return (root / LIST).is_file()


def read_fastcomposer(root: Path) -> Reading:
    """All pictures of the training list, and what was left out and why."""
    reading = Reading()
    for name in (root / LIST).read_text(encoding="utf-8").split():
        path = root / name[:5] / f"{name}.jpg"
        try:
            reading.pictures.append(read_picture(path))
        except BadPicture as reason:
            reading.dropped.append((path, str(reason)))
    return reading


def read_picture(path: Path) -> Picture:
    """One picture; its people are the segments with COCO's label `person`, at most four.

    Raises: BadPicture.
    """
    try:
        record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        caption: str = record["caption"]
        people = [s for s in record["segments"] if s["coco_label"] == "person"][:MOST_SUBJECTS]
        subjects = [Subject(int(s["end"]), Mask(path.with_suffix(".npy"), int(s["id"]))) for s in people]
    except FileNotFoundError as error:
        raise BadPicture(f"missing file: {path.stem}.json") from error
    except (KeyError, TypeError, ValueError) as error:
        raise BadPicture(f"malformed json: {path.stem}.json ({error!r})") from error
    if not subjects:
        raise BadPicture(f"nobody: no segment is labelled person, '{caption}'")
    return Picture(path, caption, tuple(subjects))
