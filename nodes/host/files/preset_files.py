"""The IP-Adapter and the CLIP vision model behind a preset, found by what the files contain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import folder_paths

from ....moa_attention.adapters.base import FACE_INPUTS, EncoderInput
from ....moa_attention.formats.errors import StoredFileError, enumeration, printable
from ....moa_attention.formats.ip_adapter.importing import BASES, FileKind, recognise
from ....moa_attention.formats.ip_adapter.presets import PRESETS, Preset
from ..model.layers import attachment_for
from .adapters import open_file
from .clip_files import FOLDER as VISION_FOLDER
from .clip_files import fitting_files
from .folders import IPADAPTER_FOLDER
from .listing import file_names

LISTED = 12
"""Files that a message describes."""


class ModelFamily(NamedTuple):
    """What an IP-Adapter must fit."""

    base: str
    """sd15 or sdxl."""
    text_width: int


class PresetFiles(NamedTuple):
    """Names in models/ipadapter and models/clip_vision."""

    adapter: str
    vision: str | None
    """None where the adapter reads only face embeddings."""
    about: str
    """What was looked for and found, for users."""


def family_of(model: Any) -> ModelFamily:
    """Of a ModelPatcher.

    Raises: ValueError when no IP-Adapter is made for such a model.
    """
    cross = [layer.spec for layer in attachment_for(model.model).layers(model.model) if layer.spec.is_cross]
    if len(cross) not in BASES:
        raise ValueError(
            f"'Load IP-Adapter (MoA)' needs an SD1.5 or SDXL model, with 16 or 70 cross-attention layers; the connected "
            f"model ({type(model.model).__name__}) has {len(cross)}. Connect the checkpoint's model."
        )
    return ModelFamily(BASES[len(cross)], cross[0].context)


def find_files(model: Any, choice: str) -> PresetFiles:
    """The files for a preset and a model.

    Args: choice: key of `PRESETS`.
    Raises: ValueError as `family_of`; FileNotFoundError stating what was looked for, where, and what was found there.
    """
    family, preset = family_of(model), PRESETS[choice]
    kinds = dict(kinds_in_folder())
    fitting = sorted((n for n, found in kinds.items() if is_meant(preset, family, n, found)), key=preference)
    if not fitting:
        raise FileNotFoundError(no_adapter(choice, family, kinds))
    name = fitting[0]
    found: Any = kinds[name]
    vision, models = vision_of(name, found)
    lines = [
        f"looked for: {wanted(preset, family)}",
        f"IP-Adapter: models/{IPADAPTER_FOLDER}/{name}" + also(fitting[1:]),
        f"CLIP vision: models/{VISION_FOLDER}/{vision}" + also(models[1:]) if vision else "CLIP vision: not needed",
        *needs(found, choice),
    ]
    return PresetFiles(name, vision, "\n".join(lines))


def kinds_in_folder() -> Iterator[tuple[str, FileKind | str]]:
    """Every file of models/ipadapter with its kind, or why it has none."""
    for name in file_names(IPADAPTER_FOLDER):
        path = folder_paths.get_full_path(IPADAPTER_FOLDER, name)
        try:
            yield name, recognise(open_file(Path(path or name)))
        except StoredFileError as error:
            yield name, str(error)


def is_meant(preset: Preset, family: ModelFamily, name: str, found: FileKind | str) -> bool:
    """Whether a file fits both the preset and the model."""
    if isinstance(found, str) or (found.base, found.text_width) != family:
        return False
    return preset.fits(found, Path(name).name)


def preference(name: str) -> tuple[bool, bool, str]:
    """Sorts files that fit alike: .safetensors first, the newer v11 before the older."""
    return not name.endswith(".safetensors"), "v11" not in name, name


def vision_of(adapter: str, found: FileKind) -> tuple[str | None, list[str]]:
    """The CLIP vision model that an IP-Adapter reads, and all that fit.

    Raises: FileNotFoundError.
    """
    reads: dict[EncoderInput, int] = found.kind.requires(found.shapes)
    reads = {name: width for name, width in reads.items() if name not in FACE_INPUTS}
    if not reads:
        return None, []
    [(encoder_input, width)] = reads.items()
    models = sorted(fitting_files(encoder_input, width), key=preference)
    if not models:
        raise FileNotFoundError(
            f"'Load IP-Adapter (MoA)' found '{printable(adapter)}', but not its CLIP vision model. Looked for: "
            f"{found.kind.encoder(found.shapes)} ({encoder_input} {width} wide), in {searched(VISION_FOLDER)}. Models there that do "
            f"not fit: {enumeration(file_names(VISION_FOLDER), LISTED)}. Download that model and put it there."
        )
    return models[0], models


def no_adapter(choice: str, family: ModelFamily, kinds: dict[str, FileKind | str]) -> str:
    """The message for a preset without a file."""
    described = [f"{name} ({describe_kind(found)})" for name, found in kinds.items()]
    return (
        f"'Load IP-Adapter (MoA)' found no file for '{choice}'. Looked for: {wanted(PRESETS[choice], family)}, in "
        f"{searched(IPADAPTER_FOLDER)}. Files there: {enumeration(described, LISTED)}. Put the file there, choose another preset, or "
        "choose a file by its name in 'Load MoA Adapter'."
    )


def describe_kind(found: FileKind | str) -> str:
    """A file's kind in a few words."""
    return (
        "not an IP-Adapter" if isinstance(found, str) else f"{found.name}, {found.base}, text width {found.text_width}"
    )


def wanted(preset: Preset, family: ModelFamily) -> str:
    """What is looked for."""
    return f"{preset.wanted()}, for {family.base} with text width {family.text_width}"


def searched(folder: str) -> str:
    """The folders that were looked through."""
    return ", ".join(folder_paths.get_folder_paths(folder))


def also(others: list[str]) -> str:
    """The end of a line on the file that was taken."""
    return f" ({enumeration(others)} also fits)" if others else ""


def needs(found: FileKind, choice: str) -> list[str]:
    """What a user must connect besides, a line each."""
    if not set(FACE_INPUTS) & found.kind.requires(found.shapes).keys():
        return []
    lines = ["needs a face embedding: connect 'Face Embedding (MoA)' to 'face' of 'Encode Subject (MoA)'"]
    if found.name == "faceid plus":
        version = "2" if "V2" in choice else "1"
        lines.append(f"set 'faceid_plus' of 'Encode Subject (MoA)' to {version}")
    return lines
