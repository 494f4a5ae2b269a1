"""Presets of IP-Adapter files: what a file must contain, and where several kinds have the same tensors, what its name must say.

The names are those of IPAdapter_plus' unified loaders, so that a saved workflow keeps its choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .importing import FileKind
from .kinds import BIG_G

V2 = r"plus[-_. ]?v2"


class Preset(NamedTuple):
    """One choice of a user."""

    kind: str
    """As `FileKind.name`."""
    having: str = ""
    """Regular expression that the file's name must contain; empty: any name."""
    lacking: str = ""
    """Regular expression that it must not contain; empty: any name."""
    big_g: bool | None = False
    """Whether the file reads CLIP-ViT-bigG-14, the only encoder that a preset is about; None: any encoder."""

    def fits(self, found: FileKind, name: str) -> bool:
        """Whether a file of this kind and name is meant."""
        named = bool(re.search(self.having, name, re.IGNORECASE))
        other = bool(self.lacking and re.search(self.lacking, name, re.IGNORECASE))
        reads_big_g = found.kind.encoder(found.shapes) == BIG_G
        return found.name == self.kind and named and not other and self.big_g in (None, reads_big_g)

    def wanted(self) -> str:
        """What is looked for, for messages."""
        parts = [f"kind '{self.kind}'"]
        parts += [f"reading {BIG_G}"] if self.big_g else []
        parts += [f"with '{words_of(self.having)}' in its name"] if self.having else []
        parts += [f"without '{words_of(self.lacking)}' in its name"] if self.lacking else []
        return ", ".join(parts)


def words_of(pattern: str) -> str:
    """A pattern as users read it."""
    return " or ".join(pattern.replace("[-_. ]?", "").split("|"))


PRESETS: Mapping[str, Preset] = {
    "LIGHT - SD1.5 only (low strength)": Preset("base", having="light"),
    "STANDARD (medium strength)": Preset("base", lacking="light"),
    "VIT-G (medium strength)": Preset("base", big_g=True),
    "PLUS (high strength)": Preset("plus", lacking="face|composition|kolors"),
    "PLUS FACE (portraits)": Preset("plus", having="face"),
    "FULL FACE - SD1.5 only (portraits stronger)": Preset("full"),
    "Composition": Preset("plus", having="composition"),
    "FACEID": Preset("faceid"),
    "FACEID PLUS - SD1.5 only": Preset("faceid plus", lacking=V2),
    "FACEID PLUS V2": Preset("faceid plus", having=V2),
    "FACEID PORTRAIT (style transfer)": Preset("faceid portrait"),
    "FACEID PORTRAIT UNNORM - SDXL only (strong)": Preset("instantid", having="unnorm"),
    "INSTANTID - SDXL only (attention part)": Preset("instantid", lacking="unnorm"),
}
"""By the name that users choose."""
