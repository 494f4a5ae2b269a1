"""What the first start of the extension creates: the folder of adapters, and the files that the example workflows load."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import folder_paths

from .folders import FOLDER

log = logging.getLogger(__name__)

EXAMPLE_PICTURES = Path(__file__).resolve().parents[3] / "example_workflows" / "references"


def prepare_first_start() -> None:
    """Create `models/moa`, and in the host's input folder the example pictures that are missing.

    A file that exists is never changed. A folder that refuses to be written to is reported, and the extension loads without it.
    """
    try:
        Path(folder_paths.get_folder_paths(FOLDER)[0]).mkdir(parents=True, exist_ok=True)
        inputs = Path(folder_paths.get_input_directory())
        inputs.mkdir(parents=True, exist_ok=True)
        for file in sorted(path for path in EXAMPLE_PICTURES.rglob("*") if path.is_file()):
            copy = inputs / file.relative_to(EXAMPLE_PICTURES)
            if not copy.exists():
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, copy)
    except OSError as error:
        log.warning("MoA: the example pictures are not in the input folder, because it cannot be written to: %s", error)
