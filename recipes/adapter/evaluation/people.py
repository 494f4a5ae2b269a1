"""The subjects of an evaluation: a folder with a picture, a word and, if there is one, a second picture of each."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ....moa_attention.training.data.folder import PICTURES, find_masks
from ....moa_attention.training.data.pictures import BadPicture, Picture, Subject, read_image, read_masks
from ..settings import SettingsError

OTHER = ".other"


@dataclass(frozen=True)
class Person:
    """Somebody, or something."""

    name: str
    word: str
    """What prompts call it."""
    picture: Tensor = field(compare=False, repr=False)
    """(3,H,W) in [0,1], the reference."""
    mask: Tensor | None = field(default=None, compare=False, repr=False)
    """(H,W) in [0,1], on the picture's own grid; None: the picture shows little else."""
    other: Tensor | None = field(default=None, compare=False, repr=False)
    """(3,H,W) in [0,1], another picture of the same."""


def read_people(folder: str) -> list[Person]:
    """All subjects of a folder, by name.

    Raises: SettingsError when there is no such folder, nobody in it, or somebody without a word or a readable picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SettingsError(
            f"evaluation.people: there is no folder {root.resolve()}. It holds one picture of each subject."
        )
    groups: dict[str, list[Path]] = {}
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in PICTURES and not path.name.startswith("."):
            groups.setdefault(path.name.split(".")[0], []).append(path)
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
    """From the picture of that name and the files beside it.

    Raises: BadPicture.
    """
    own = sorted((p for p in paths if p.stem == name), key=lambda p: p.suffix.lower() == ".png")
    if not own:
        raise BadPicture(f"there is no picture {name} for {paths[0].name}")
    word = own[0].with_suffix(".txt")
    text = word.read_text(encoding="utf-8").strip() if word.is_file() else ""
    if not text:
        raise BadPicture(f"{own[0].name} has no word: write what prompts call it, such as woman, into {word.name}")
    picture = read_rgb(own[0])
    masks = tuple(Subject(len(text), mask) for mask in find_masks(own[0], [p for p in paths if p != own[0]])[:1])
    mask = read_masks(Picture(own[0], text, masks), (picture.shape[1], picture.shape[2]))[0] if masks else None
    other = next((p for p in paths if p.stem == name + OTHER), None)
    return Person(name, text, picture, mask, None if other is None else read_rgb(other))


def read_rgb(path: Path) -> Tensor:
    """(3,H,W) in [0,1]"""
    return read_image(path)[:3].float() / 255
