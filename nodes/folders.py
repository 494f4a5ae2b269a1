"""Where adapter files are looked for: the user's `models/moa` folders and the files that come with the extension."""

from __future__ import annotations

import json
import os
from pathlib import Path

import folder_paths

FOLDER = "moa"
WEIGHTS = Path(__file__).resolve().parent.parent / "weights"
IMPORTED, IMPORTED_FOLDER = "ipadapter/", "ipadapter"
"""Prefix in drop-downs of files for import, and the host's folder of them, which other packs know, too."""
SUBJECTS = "moa_subjects"
"""The host's folder of saved subjects: models/moa/subjects."""
FACES = "moa_faces"
"""The host's folder of face embeddings: models/moa/faces."""
ROUTERS = "moa_routers"
"""The host's folder of routers fitted to somebody's expert: models/moa/routers."""
OTHERS = {
    SUBJECTS: ("subjects", {".safetensors"}),
    FACES: ("faces", {".safetensors", ".npy"}),
    ROUTERS: ("routers", {".safetensors"}),
}
"""Folders inside models/moa that hold no adapters, and what lies there."""
BUNDLED = "bundled/"
"""Prefix in drop-downs of files that come with the extension."""


def register_adapter_folders() -> None:
    """Add `models/moa` and `models/ipadapter` to the host's folders, beside what extra_model_paths or other packs name."""
    for folder, kinds in ((FOLDER, {".safetensors"}), (IMPORTED_FOLDER, {".safetensors", ".bin"})):
        folder_paths.add_model_folder_path(folder, str(Path(folder_paths.models_dir) / folder))
        paths, others = folder_paths.folder_names_and_paths[folder]
        shared = others if folder == IMPORTED_FOLDER else set()
        folder_paths.folder_names_and_paths[folder] = (paths, kinds | shared)
    for key, (inside, kinds) in OTHERS.items():
        folder_paths.add_model_folder_path(key, str(Path(folder_paths.models_dir) / FOLDER / inside))
        folder_paths.folder_names_and_paths[key] = (folder_paths.get_folder_paths(key), kinds)


def new_file(folder: str, prefix: str) -> Path:
    """A numbered .safetensors file that is not there yet, in the first of the host's folders of that name.

    Raises: what the host raises for prefixes that lead out of it.
    """
    root = folder_paths.get_folder_paths(folder)[0]
    os.makedirs(root, exist_ok=True)
    within, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
    return Path(within) / f"{name}_{counter:05}_.safetensors"


def subject_path(name: str) -> Path:
    """The saved subject behind a drop-down entry.

    Raises: FileNotFoundError as `file_of`.
    """
    return file_of(SUBJECTS, name, "subject", "MoASaveSubject writes them; refresh the browser page after saving.")


def face_path(name: str) -> Path:
    """The face embedding behind a drop-down entry.

    Raises: FileNotFoundError as `file_of`.
    """
    return file_of(FACES, name, "face embedding", "Put the file there and refresh the browser page.")


def router_path(name: str) -> Path:
    """The fitted routers behind a drop-down entry.

    Raises: FileNotFoundError as `file_of`.
    """
    return file_of(ROUTERS, name, "routers", "Training with only_routers makes them; refresh the browser page.")


def stamp(path: Path) -> str:
    """What changes when a file does, for the host's caches."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def file_of(folder: str, name: str, kind: str, advice: str) -> Path:
    """Raises: FileNotFoundError naming the folder searched and what was seen there."""
    found = folder_paths.get_full_path(folder, name)
    if found is None:
        there = ", ".join(folder_paths.get_filename_list(folder)) or "none"
        searched = ", ".join(folder_paths.get_folder_paths(folder))
        raise FileNotFoundError(f"No {kind} '{name}' in {searched}. There: {there}. {advice}")
    return Path(found)


def bundled_files() -> dict[str, Path]:
    """Adapters of weights/manifest.json by their name in drop-downs."""
    manifest = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    return {BUNDLED + entry["file"]: WEIGHTS / entry["file"] for entry in manifest["adapters"]}


def adapter_names() -> list[str]:
    """Our own files, IP-Adapters, and what comes with the extension."""
    others = {inside for inside, _ in OTHERS.values()}
    own = [name for name in folder_paths.get_filename_list(FOLDER) if Path(name).parts[0] not in others]
    foreign = [IMPORTED + name for name in folder_paths.get_filename_list(IMPORTED_FOLDER)]
    return [*own, *foreign, *bundled_files()]


def adapter_path(name: str) -> Path:
    """The file behind a drop-down entry.

    Raises: FileNotFoundError naming the folders searched and the adapters seen there.
    """
    found = bundled_files().get(name) or folder_paths.get_full_path(FOLDER, name)
    if found is None and name.startswith(IMPORTED):
        found = folder_paths.get_full_path(IMPORTED_FOLDER, name.removeprefix(IMPORTED))
    if found is None or not Path(found).is_file():
        folders = ", ".join(
            path for folder in (FOLDER, IMPORTED_FOLDER) for path in folder_paths.get_folder_paths(folder)
        )
        raise FileNotFoundError(
            f"No adapter '{name}' in {folders}. There: {', '.join(adapter_names()) or 'none'}. "
            "Put the file into one of these folders and refresh the browser page."
        )
    return Path(found)
