"""The host's folders of adapters, subjects, face embeddings and routers, and the adapters that this extension contains."""

from __future__ import annotations

import json
import os
from pathlib import Path

import folder_paths

from ....moa_attention.formats.errors import is_one_line, printable
from .listing import file_names

FOLDER = "moa"
"""The host's folder of adapters: models/moa."""
IPADAPTER_FOLDER = "ipadapter"
"""The host's folder of IP-Adapters, models/ipadapter, which other packs share."""
SUBJECTS, FACES, ROUTERS = "moa_subjects", "moa_faces", "moa_routers"
"""The host's folders of saved subjects, face embeddings, and routers that were fitted to an adapter."""
EMBEDS, EMBEDS_SUFFIX = "moa_embeds", ".ipadpt"
"""The host's folder of image features that IPAdapter_plus saved: ComfyUI's input folder, where that pack looks for them."""
SUBFOLDERS = {
    SUBJECTS: ("subjects", {".safetensors"}),
    FACES: ("faces", {".safetensors", ".npy"}),
    ROUTERS: ("routers", {".safetensors"}),
}
"""Folders inside models/moa that hold no adapters: their name and file types."""
IPADAPTER_PREFIX, BUNDLED_PREFIX = "ipadapter/", "bundled/"
"""Of names in drop-downs: IP-Adapters, and adapters that this extension contains."""
LONGEST_NAME = 200
"""Bytes of a name; most file systems allow 255, and numbers and endings are added."""
WEIGHTS = Path(__file__).resolve().parents[3] / "weights"
HOST_FOLDERS = ("controlnet", "loras")
"""The host's folders to which MoA Mini adds files, for the host's own loaders."""


def register_adapter_folders() -> None:
    """Add `models/moa`, `models/ipadapter` and the folders of MoA Mini to the host's; those of extra_model_paths and other packs remain."""
    for folder, file_types in ((FOLDER, {".safetensors"}), (IPADAPTER_FOLDER, {".safetensors", ".bin"})):
        folder_paths.add_model_folder_path(folder, str(Path(folder_paths.models_dir) / folder))
        paths, registered = folder_paths.folder_names_and_paths[folder]
        shared = registered if folder == IPADAPTER_FOLDER else set()
        folder_paths.folder_names_and_paths[folder] = (paths, file_types | shared)
    for folder, (name, file_types) in SUBFOLDERS.items():
        folder_paths.add_model_folder_path(folder, str(Path(folder_paths.models_dir) / FOLDER / name))
        folder_paths.folder_names_and_paths[folder] = (folder_paths.get_folder_paths(folder), file_types)
    for folder in HOST_FOLDERS:
        folder_paths.add_model_folder_path(folder, str(WEIGHTS / "mini" / folder))
    folder_paths.folder_names_and_paths[EMBEDS] = ([folder_paths.get_input_directory()], {EMBEDS_SUFFIX})


def check_name(name: str) -> None:
    """Raises: ValueError when no file or folder can have that name: empty, hidden, too long, or with control characters."""
    parts = name.replace("\\", "/").split("/")
    problems = {
        "is empty": not parts[-1].strip(),
        "has a part that begins with a dot, which hides a file": any(part.startswith(".") for part in parts),
        f"has a part longer than {LONGEST_NAME} bytes": max(len(os.fsencode(part)) for part in parts) > LONGEST_NAME,
        "has line breaks or other control characters": not is_one_line(name),
    }
    problem = next((problem for problem, found in problems.items() if found), None)
    if problem is not None:
        raise ValueError(f"The name '{printable(name, 60)}' {problem}. Use a plain name, or folder/name.")


def inside(root: str, name: str) -> Path:
    """A folder below `root`.

    Raises: ValueError as `check_name`, and when the name or a link leads out of it.
    """
    check_name(name)
    path, given = (Path(root) / name).resolve(), Path(os.path.normpath(Path(root) / name))
    if given.is_relative_to(root) and given != Path(root) and not path.is_relative_to(Path(root).resolve()):
        raise ValueError(f"'{name}' is a link that leads out of {root}, to {path}. Put the folder itself there.")
    if not path.is_relative_to(Path(root).resolve()) or path == Path(root).resolve():
        raise ValueError(
            f"'{name}' is not a folder inside {root}. Use a name without '..' that does not begin with '/'."
        )
    return path


def new_file(folder: str, prefix: str) -> Path:
    """The path of a new numbered .safetensors file in the first of the host's folders of that name.

    Args: prefix: a name, or folder/name; the host replaces its own placeholders such as %date%.
    Raises: ValueError as `check_name`, before a folder is made; the host's own exception for a prefix that leads out of the folder.
    """
    check_name(prefix)
    root = folder_paths.get_folder_paths(folder)[0]
    os.makedirs(root, exist_ok=True)
    within, name, counter, _, _ = folder_paths.get_save_image_path(prefix, root)
    return Path(within) / f"{name}_{counter:05}_.safetensors"


def subject_path(name: str) -> Path:
    """The saved subject behind a drop-down entry.

    Raises: FileNotFoundError as `existing_file`.
    """
    advice = "'Save Subject (MoA)' writes such files. Refresh the browser page after saving."
    return existing_file(SUBJECTS, name, "subject", advice)


def face_path(name: str) -> Path:
    """The face embedding behind a drop-down entry.

    Raises: FileNotFoundError as `existing_file`.
    """
    return existing_file(FACES, name, "face embedding", "Put the file there and refresh the browser page.")


def router_path(name: str) -> Path:
    """The fitted routers behind a drop-down entry.

    Raises: FileNotFoundError as `existing_file`.
    """
    advice = "Training with only_routers writes such files. Put the file there and refresh the browser page."
    return existing_file(ROUTERS, name, "router file", advice)


def embeds_path(name: str) -> Path:
    """The image features behind a drop-down entry.

    Raises: FileNotFoundError as `existing_file`.
    """
    advice = f"Put the {EMBEDS_SUFFIX} file there and refresh the browser page."
    return existing_file(EMBEDS, name, "file of image features", advice)


def existing_file(folder: str, name: str, kind: str, advice: str) -> Path:
    """A file of one of the host's folders.

    Raises: FileNotFoundError naming the folders searched, the files in them, and `advice`.
    """
    found = folder_paths.get_full_path(folder, name)
    if found is None:
        searched = ", ".join(folder_paths.get_folder_paths(folder))
        files = ", ".join(file_names(folder)) or "none"
        raise FileNotFoundError(f"No {kind} '{name}' in {searched}. Files there: {files}. {advice}")
    return Path(found)


def file_version(path: Path) -> str:
    """Size and modification time of a file, as a value for the host's caches."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def folder_versions(*folders: str) -> str:
    """Names and versions of all files in some of the host's folders, as a value for the host's caches."""
    found = [
        (name, folder_paths.get_full_path(folder, name)) for folder in folders for name in sorted(file_names(folder))
    ]
    return " ".join(f"{name} {file_version(Path(path))}" for name, path in found if path)


def bundled_adapters() -> dict[str, Path]:
    """Adapters of weights/manifest.json by their name in drop-downs."""
    manifest = json.loads((WEIGHTS / "manifest.json").read_text(encoding="utf-8"))
    return {BUNDLED_PREFIX + entry["file"]: WEIGHTS / entry["file"] for entry in manifest["adapters"]}


def adapter_names() -> list[str]:
    """The entries of the drop-down of adapters: models/moa, IP-Adapters, bundled adapters."""
    subfolders = {name for name, _ in SUBFOLDERS.values()}
    moa = [name for name in file_names(FOLDER) if Path(name).parts[0] not in subfolders]
    ip_adapters = [IPADAPTER_PREFIX + name for name in file_names(IPADAPTER_FOLDER)]
    return [*moa, *ip_adapters, *bundled_adapters()]


def adapter_path(name: str) -> Path:
    """The file behind an entry of the drop-down of adapters.

    Raises: FileNotFoundError naming the folders searched and the adapters in them.
    """
    found = bundled_adapters().get(name) or folder_paths.get_full_path(FOLDER, name)
    if found is None and name.startswith(IPADAPTER_PREFIX):
        found = folder_paths.get_full_path(IPADAPTER_FOLDER, name.removeprefix(IPADAPTER_PREFIX))
    if found is None or not Path(found).is_file():
        searched = ", ".join(
            path for folder in (FOLDER, IPADAPTER_FOLDER) for path in folder_paths.get_folder_paths(folder)
        )
        raise FileNotFoundError(
            f"No adapter '{name}' in {searched}. Adapters there: {', '.join(adapter_names()) or 'none'}. "
            "Put the file into one of these folders and refresh the browser page."
        )
    return Path(found)
