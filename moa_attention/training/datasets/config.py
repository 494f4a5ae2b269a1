"""The settings of one folder of pictures."""

from __future__ import annotations

from dataclasses import dataclass

from ..data.listing import CAPTION
from ..data.texts import JSON, METADATA
from ..rules import Ranged, setting


@dataclass(frozen=True)
class DatasetConfig(Ranged):
    """A folder of pictures among several.

    Raises: ValueError for `captions` of another kind, and for `tag_dropout` without `shuffles`.
    """

    folder: str
    """Folder of pictures, as data.folder; or a folder of .tar files in webdataset's layout, which are extracted into the
    output folder."""
    licence: str
    """Licence of the pictures. It is saved in the adapter file."""
    description: str = ""
    """One line that describes the pictures. It is saved in the adapter file."""
    repeats: int = setting(1, 1, 100_000)
    """How often an epoch shows each picture of the folder."""
    weight: float = setting(1.0, 0.0, 1000.0)
    """Factor of all losses of these pictures."""
    captions: str = CAPTION
    """Source of the captions: ".txt" or ".json" for a file beside each picture, or the name of a .jsonl, .csv or .parquet
    file in the folder, whose column file_name names the pictures. A .parquet file needs the package pyarrow."""
    column: str = "text"
    """The column of that file, or the field of the .json files, with the caption. A list of texts gives several captions."""
    trigger: str = ""
    """Text before every caption, followed by a comma. A word for a subject in it, such as "sks man", is the first subject;
    if it has <|image|> marks, only marked words are subjects."""
    words: tuple[str, ...] = ()
    """Words that can be a subject in these captions. Without any, those of data.words."""
    shuffles: int = setting(0, 0, 64)
    """Number of versions of each caption with its tags, the parts between commas, in another order. They replace the
    caption, and one is drawn whenever the picture is shown. The trigger stays in front; subjects stay bound to their
    words. 0 leaves captions as they are."""
    tag_dropout: float = setting(0.0, 0.0, 0.99)
    """Probability that a version leaves out a tag. Tags with a subject's word and the trigger are always kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.captions not in (CAPTION, JSON) and not self.captions.lower().endswith(METADATA):
            raise ValueError(
                f"captions is '{self.captions}' and must be '{CAPTION}', '{JSON}', or the name of a file that ends in "
                f"{', '.join(METADATA)}"
            )
        if self.tag_dropout and not self.shuffles:
            raise ValueError("tag_dropout leaves out tags of the versions that 'shuffles' makes, and shuffles is 0")
