"""The subjects of an evaluation: a folder with a picture and a word of each, and optionally a second picture."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ....moa_attention.training.data.captions import read_text
from ....moa_attention.training.data.folder import find_masks
from ....moa_attention.training.data.images import read_image, read_masks
from ....moa_attention.training.data.listing import CAPTION, PICTURES, group
from ....moa_attention.training.data.pictures import BadPicture, Caption, PictureSubject, TrainingPicture
from ..settings import SettingsError

OTHER = ".other"


@dataclass(frozen=True)
class Person:
    """A subject of the evaluation."""

    name: str
    word: str
    """The noun for it in prompts."""
    picture: Tensor = field(compare=False, repr=False)
    """(3,H,W) in [0,1], the reference."""
    mask: Tensor | None = field(default=None, compare=False, repr=False)
    """(H,W) in [0,1], on the picture's own grid; None for the whole picture."""
    other: Tensor | None = field(default=None, compare=False, repr=False)
    """(3,H,W) in [0,1], another picture of the same subject."""


def read_people(folder: str) -> list[Person]:
    """All subjects of a folder, by name.

    Raises: SettingsError when there is no such folder, no picture in it, or a subject without a word or a readable picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SettingsError(
            f"evaluation.people: there is no folder {root.resolve()}. Create it, with one picture of each subject."
        )
    groups: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in (*PICTURES, CAPTION) and not path.name.startswith("."):
            groups.setdefault(path.name.split(".")[0], []).append(path)
    groups = {name: paths for name, paths in groups.items() if any(p.suffix.lower() in PICTURES for p in paths)}
    if not groups:
        raise SettingsError(
            f"evaluation.people: no pictures ({', '.join(PICTURES)}) in {root.resolve()}. "
            "Put one of each subject there, with its word in a text file of the same name."
        )
    try:
        return [read_person(name, paths) for name, paths in groups.items()]
    except BadPicture as error:
        raise SettingsError(f"evaluation.people, in {root.resolve()}: {error}.") from error


def read_person(name: str, paths: list[Path]) -> Person:
    """Read a subject from the picture of its name and the files beside it.

    Raises: BadPicture.
    """
    try:
        files = group(name, paths)
    except LookupError as error:
        raise BadPicture(f"there is no picture {name} for {paths[0].name}") from error
    own, text = files.picture, " ".join(" ".join(map(read_text, files.captions)).split())
    if not text:
        raise BadPicture(f"{own.name} has no word. Write the subject's noun, such as woman, into {name}.txt")
    picture = read_rgb(own)
    subjects = tuple(PictureSubject(mask) for mask in find_masks(files).values())[:1]
    asked = TrainingPicture(own, own, (Caption(text, (len(text),)),), subjects)
    mask = read_masks(asked, (picture.shape[1], picture.shape[2]))[0] if subjects else None
    other = next((p for p in paths if p.stem == name + OTHER), None)
    return Person(name, text, picture, mask, None if other is None else read_rgb(other))


def read_rgb(path: Path) -> Tensor:
    """(3,H,W) in [0,1]"""
    return read_image(path)[:3].float() / 255
