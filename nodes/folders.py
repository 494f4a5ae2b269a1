"""Where adapter files are looked for: the user's `models/moa` folders and the files that come with the extension."""

from __future__ import annotations

import json
from pathlib import Path

import folder_paths

FOLDER = "moa"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
BUNDLED = "bundled/"
"""Prefix in drop-downs of files that come with the extension."""


def register_adapter_folder() -> None:
    """Add `models/moa` to the host's folders, beside what the user's extra_model_paths already names; safetensors only."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def bundled_files() -> dict[str, Path]:
    """Adapters of weights/manifest.json by their name in drop-downs."""
    manifest = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    return {BUNDLED + entry["file"]: WEIGHTS / entry["file"] for entry in manifest["adapters"]}


def adapter_names() -> list[str]:
    return [*folder_paths.get_filename_list(FOLDER), *bundled_files()]


def adapter_path(name: str) -> Path:
    """The file behind a drop-down entry.

    Raises: FileNotFoundError naming the folders searched and the adapters seen there.
    """
    found = bundled_files().get(name) or folder_paths.get_full_path(FOLDER, name)
    if found is None or not Path(found).is_file():
        folders = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise FileNotFoundError(
            f"No adapter '{name}' in {folders}. There: {', '.join(adapter_names()) or 'none'}. "
            "Put the .safetensors file into one of these folders and refresh the browser page."
        )
    return Path(found)
