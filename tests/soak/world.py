"""The files of a server under test, and what happens to them while it runs."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import host
import numpy as np
import subjects
from comfyui_moa.moa_attention.formats.adapter import save_adapter
from PIL import Image
from test_image_prompts import write_file

PICTURES = ("anna.png", "ben.png", "moa_man.png", "moa_woman.png")
"""In the input folder; the extension copies the last two there."""
DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda content: b"",
    lambda content: content[: len(content) // 2],
    lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
    lambda content: content[:4000] + b"\xff" * max(0, len(content) - 4000),
)


def write_drawn(path: Path, seed: int) -> None:
    adapter = subjects.make_adapter(host.sd15(), host.SD15_CONTEXT, seed=seed).patcher.model
    save_adapter(adapter, path, licence="CC0", provenance={"seed": seed})


def write_ip_adapter(path: Path, seed: int) -> None:
    write_file(host.sd15(seed=seed), host.SD15_CONTEXT, path, "faceid" if "faceid" in path.name else "base")


def write_face(path: Path, seed: int) -> None:
    np.save(path, np.random.default_rng(seed).standard_normal((2, 512)).astype(np.float32))


def write_picture(path: Path, seed: int) -> None:
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (96, 64, 3), np.uint8)).save(path)


FILES: dict[str, Callable[[Path, int], None]] = {
    "models/moa/drawn.safetensors": write_drawn,
    "models/moa/faces/face.npy": write_face,
    "models/ipadapter/tiny.bin": write_ip_adapter,
    "models/ipadapter/tiny_faceid.safetensors": write_ip_adapter,
    "input/anna.png": write_picture,
    "input/ben.png": write_picture,
}
FOLDERS = ("models/moa", "models/ipadapter", "input/moa_example")
"""Without the whole input folder: where it is gone, ComfyUI's own Load Image ends the thread that runs workflows."""


class World:
    """Valid files, each in two versions, below the base folder of a server."""

    def __init__(self, base: Path):
        self.base = base
        self.versions = {name: tuple(self._written(name, seed) for seed in (0, 1)) for name in FILES}
        self.away: list[str] = []
        self.restore()

    def _written(self, name: str, seed: int) -> bytes:
        path = self.base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        FILES[name](path, seed)
        return path.read_bytes()

    def replace(self, r: random.Random) -> str:
        """Another content in the same file: its other version, or a damaged one."""
        name = r.choice(list(FILES))
        path, other = self.base / name, self.versions[name][1]
        if path.parent.is_dir():
            path.write_bytes(other if r.random() < 0.5 else r.choice(DAMAGES)(other))
        return "replaced file"

    def vanish(self, r: random.Random) -> str:
        """A folder gets another name."""
        name = r.choice([name for name in FOLDERS if name not in self.away and (self.base / name).is_dir()])
        (self.base / name).rename(self.base / f"{name}.away")
        self.away.append(name)
        return "vanished folder"

    def restore(self) -> None:
        """The folders are back, with the first versions of all files."""
        while self.away:
            away = self.base / f"{self.away[-1]}.away"
            shutil.copytree(away, self.base / self.away.pop(), dirs_exist_ok=True)
            shutil.rmtree(away)
        for name, (content, _) in self.versions.items():
            path = self.base / name
            if not path.is_file() or path.read_bytes() != content:
                path.write_bytes(content)

    def copy(self, base: Path) -> None:
        """The same files for another server."""
        for name in ("models", "input"):
            shutil.copytree(self.base / name, base / name)
