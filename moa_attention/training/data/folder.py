"""A folder of pictures, in FastComposer's layout or with captions and masks beside them:

beach.jpg          the picture, in a format of `listing.PICTURES`
beach.txt          its captions, one on each line; words marked with <|image|>, else the first person words, are the subjects
beach.png          the mask of its only subject: white, or opaque, where it is. Or the picture's own transparency
beach.mask.png     the same, where the picture itself is a .png
beach.mask1.png    one mask for each of several subjects, in the order of their words
beach.ref1.jpg     another picture of subject 1 (beach.ref1b.jpg and so on for more), optional
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .captions import PERSON_WORDS, parse_caption
from .fastcomposer import is_fastcomposer, read_fastcomposer
from .images import read_image
from .listing import COMPANION, PictureFiles, list_folder
from .pictures import BadPicture, Caption, MaskFile, PictureFolder, PictureSubject, Remark, TrainingPicture
from .texts import CaptionTexts

BESIDE = CaptionTexts()
"""Captions in a .txt file beside each picture."""


def read_pictures(root: Path, words: Sequence[str] = PERSON_WORDS, texts: CaptionTexts = BESIDE) -> PictureFolder:
    """The pictures of a folder in either layout, and what is left out and why.

    Args: words: nouns that can be a subject in captions without marks.
    Raises: ValueError when there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"There is no folder of pictures {root.resolve()}.")
    return read_fastcomposer(root) if is_fastcomposer(root) else read_folder(root, words, texts)


def read_folder(root: Path, words: Sequence[str] = PERSON_WORDS, texts: CaptionTexts = BESIDE) -> PictureFolder:
    """All pictures below `root`, in the order of their names, and what is left out and why.

    Args: words: nouns that can be a subject in captions without marks.
    """
    reading = PictureFolder()
    for files in list_folder(root, reading, texts.suffix, texts.file):
        try:
            reading.pictures.append(read_folder_picture(files, words, texts, reading))
        except BadPicture as reason:
            reading.dropped.append(Remark(files.picture, str(reason), files.count))
    return reading


def read_folder_picture(
    files: PictureFiles, words: Sequence[str], texts: CaptionTexts, reading: PictureFolder
) -> TrainingPicture:
    """One picture with the files of its name. Files that it does not use and captions that do not fit join `reading`.

    Raises: BadPicture when something is missing or does not fit together.
    """
    path = files.picture
    captions, masks = find_captions(files, words, texts), find_masks(files)
    if not masks:
        raise BadPicture(f"no mask: neither {path.stem}.png nor {path.stem}.mask.png, and the picture is opaque")
    fitting = [c for c in captions if len(c.ends) >= max(masks)]
    if not fitting:
        raise BadPicture(
            f"more masks than words: a mask of subject {max(masks)}, but {len(captions[0].ends)} words that can be a "
            f"subject in '{captions[0].text}'"
        )
    references = find_references(files)
    picture = TrainingPicture(
        path,
        files.captions[0] if files.captions else None,
        tuple(Caption(c.text, tuple(c.ends[number - 1] for number in masks)) for c in fitting),
        tuple(PictureSubject(mask, tuple(references.get(number, ()))) for number, mask in masks.items()),
    )
    reading.warnings += [Remark(path, warning) for warning in picture_warnings(masks, len(captions) - len(fitting))]
    reason = f"not used: its name belongs to no subject of {path.name}"
    used = picture.files
    reading.unused += [Remark(p, reason) for p in files.beside if p not in used]
    return picture


def picture_warnings(masks: dict[int, MaskFile], lines: int) -> list[str]:
    """What looks wrong in the files of a picture that is used; `lines` of its captions are not."""
    missing = [str(number) for number in range(1, max(masks)) if number not in masks]
    found = [f"subject without a mask: there is no mask{number}" for number in missing]
    return found + ([f"caption line not used: {lines} with too few words for subjects"] if lines else [])


def find_captions(files: PictureFiles, words: Sequence[str], texts: CaptionTexts = BESIDE) -> list[Caption]:
    """The captions of a picture that have a word for a subject.

    Raises: BadPicture when there is none.
    """
    captions = [parse_caption(line, words) for line in texts.read(files.picture, files.captions)]
    if not any(c.ends for c in captions):
        raise BadPicture(f"no word for a subject: '{captions[0].text}'")
    return captions


def find_masks(files: PictureFiles) -> dict[int, MaskFile]:
    """The masks of a picture by the number of their subject, from 1; its own transparency when there is no other.

    Raises: BadPicture when two are of one subject, or the picture cannot be read.
    """
    roles = {path: COMPANION.search(path.stem) for path in files.beside}
    numbered: dict[int, Path] = {}
    for path, role in roles.items():
        number = int(role["mask"] or 0) if role else 0
        if number in numbered:
            raise BadPicture(f"two masks of subject {number}: {numbered[number].name} and {path.name}")
        if number:
            numbered[number] = path
    if numbered:
        return {number: MaskFile(numbered[number]) for number in sorted(numbered)}
    named = [path for path, role in roles.items() if role and role["mask"] == ""]
    plain = [path for path in roles if path.stem == files.picture.stem]
    own = [files.picture] if not named + plain and len(read_image(files.picture)) == 4 else []
    found = [*named, *plain, *own]
    return {1: MaskFile(found[0])} if found else {}


def find_references(files: PictureFiles) -> dict[int, list[Path]]:
    """Other pictures of the subjects, by the subject's number."""
    found: dict[int, list[Path]] = {}
    for path in files.beside:
        if (match := COMPANION.search(path.stem)) and match["reference"]:
            found.setdefault(int(match["reference"]), []).append(path)
    return found
