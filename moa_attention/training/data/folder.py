"""A folder of pictures with captions and masks beside them.

beach.jpg          the picture (.jpg .jpeg .png .webp)
beach.txt          its caption; words marked with <|image|>, else the first person words, are the subjects
beach.png          the mask of its only subject: white, or opaque, where it is. Or the picture's own transparency
beach.mask.png     the same, where the picture itself is a .png
beach.mask1.png    one mask for each of several subjects, in the order of their words
beach.ref1.jpg     another picture of subject 1 (beach.ref1b.jpg and so on for more), optional
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .pictures import BadPicture, Mask, Picture, Reading, Subject, read_image
from .words import PERSON_WORDS, find_words, take_marks

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
COMPANION = re.compile(r"\.(?:mask\d?|ref\d[a-z]*)$")


def read_folder(root: Path, words: Sequence[str] = PERSON_WORDS) -> Reading:
    """All pictures below `root`, in the order of their names, and what was left out and why.

    Args: words: nouns that can be a subject where a caption has no marks.
    """
    reading = Reading()
    for path, beside in groups(root):
        try:
            if COMPANION.search(path.stem):
                raise BadPicture("no picture: it belongs to one that is not there")
            reading.pictures.append(read_picture(path, beside, words))
        except BadPicture as reason:
            reading.dropped.append((path, str(reason)))
    return reading


def groups(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Every picture below `root` with the files that belong to it; left over is what belongs to none."""
    found: dict[Path, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            found.setdefault(path.with_name(COMPANION.sub("", path.stem)), []).append(path)
    for base, files in found.items():
        own = [p for p in files if p.stem == base.name]
        # A .png beside a picture of another kind is its mask.
        first = min(own, key=lambda p: p.suffix.lower() == ".png", default=files[0])
        yield first, [p for p in files if p != first]


def read_picture(path: Path, beside: Sequence[Path], words: Sequence[str]) -> Picture:
    """One picture with the files of its name beside it.

    Raises: BadPicture when something is missing or does not fit together.
    """
    caption, ends = read_caption(path, words)
    masks = find_masks(path, beside)
    if not masks:
        raise BadPicture(f"no mask: neither {path.stem}.png nor {path.stem}.mask.png, and the picture is opaque")
    if len(masks) > len(ends):
        raise BadPicture(
            f"more masks than words: {len(masks)} masks, {len(ends)} words that could be a subject in '{caption}'"
        )
    subjects = [
        Subject(end, mask, tuple(p for p in beside if re.search(rf"\.ref{number}[a-z]*$", p.stem)))
        for number, (end, mask) in enumerate(zip(ends, masks, strict=False), start=1)
    ]
    return Picture(path, caption, tuple(subjects))


def read_caption(path: Path, words: Sequence[str]) -> tuple[str, list[int]]:
    """The caption and the offsets just behind the words that may be subjects.

    Raises: BadPicture when there is no caption or no such word.
    """
    file = path.with_suffix(".txt")
    if not file.is_file():
        raise BadPicture(f"no caption: {file.name} is not there")
    text = " ".join(file.read_text(encoding="utf-8", errors="replace").split())
    caption, ends = take_marks(text)
    ends = ends or find_words(caption, words)
    if not ends:
        raise BadPicture(f"no word for a subject: '{caption}'")
    return caption, ends


def find_masks(path: Path, beside: Sequence[Path]) -> list[Mask]:
    """The masks of a picture in order; its own transparency when there is no other.

    Raises: BadPicture when the picture cannot be read.
    """
    numbered = sorted(p for p in beside if re.search(r"\.mask\d$", p.stem))
    single = [p for p in beside if p.stem in (f"{path.stem}.mask", path.stem)][:1]
    found = numbered or single or ([path] if len(read_image(path)) == 4 else [])
    return [Mask(p) for p in found]
