"""The archive that users install from the registry: the tracked files without those that `.comfyignore` lists.

`.venv/bin/python -m devtools.archive [FILE.zip]`
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from .host import ROOT


def archived_files() -> list[str]:
    """Their paths below the repository's root, as the registry's own tool selects them."""
    left_out = set(_tracked("--ignored", "--exclude-from=.comfyignore"))
    return [name for name in _tracked() if name not in left_out and (ROOT / name).is_file()]


def _tracked(*options: str) -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")[:-1]


def unpack(folder: Path) -> Path:
    """Write the archive's files below `folder`, which it returns."""
    for name in archived_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target)
    return folder


def main(arguments: list[str]) -> None:
    """Write the archive as a zip file."""
    target, files = Path(arguments[0]) if arguments else ROOT / "node.zip", archived_files()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in files:
            archive.write(ROOT / name, name)
    print(f"{target}: {len(files)} files, {target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1:])
