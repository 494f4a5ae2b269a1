"""What reads files with ComfyUI, each with a valid file: imported after the host and the pack."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import core_readers
import ip_files
import mutations
import numpy as np
import torch
from attempts import Reader
from comfyui_moa.moa_attention.formats.errors import StoredFileError
from comfyui_moa.nodes.host.files import mini_files
from comfyui_moa.nodes.host.files.adapters import open_adapter
from comfyui_moa.nodes.host.files.clip_files import WIDTHS, width_in_file
from comfyui_moa.nodes.host.files.folders import WEIGHTS
from comfyui_moa.nodes.host.pictures.embeds import read_embeds
from comfyui_moa.nodes.host.pictures.face_embeddings import read_embeddings
from comfyui_moa.nodes.load import describe
from comfyui_moa.recipes.adapter.settings import SettingsError, read_settings
from safetensors.torch import save_file

EXAMPLE = Path(__file__).resolve().parents[2] / "recipes" / "adapter" / "few_photos.toml"


def load_and_describe(path: Path) -> None:
    """As 'Load MoA Adapter' does; every entry of the text is one line."""
    patcher, header = open_adapter(path)
    about = describe(header)
    lines = about.split("\n")
    assert lines == about.splitlines() and len(lines) == 3 + len(header.provenance), about
    assert patcher.model.identity


def write_pickled(folder: Path) -> None:
    nested: dict[str, Any] = ip_files.nested("full", [8] * 16, 8, 8, tokens=2, inner=8, make=core_readers.small)
    made = io.BytesIO()
    torch.save({**nested, "global_step": 7}, made)
    (folder / "file.bin").write_bytes(made.getvalue())


def write_embeds(folder: Path) -> None:
    made = io.BytesIO()
    torch.save(torch.ones(2, 5, 8, dtype=torch.float16), made)
    (folder / "file.ipadpt").write_bytes(made.getvalue())


def write_clip(folder: Path) -> None:
    names = {name for entries in WIDTHS.values() for name, _ in entries}
    save_file({name: torch.zeros(8, 8) for name in names}, folder / core_readers.FILE)


def read_clip(folder: Path) -> None:
    for name in WIDTHS:
        width = width_in_file(str(folder / core_readers.FILE), name)
        assert width is None or width > 0


def write_config(folder: Path) -> None:
    shutil.copy(EXAMPLE, folder / "config.toml")


def read_config(folder: Path) -> None:
    """The mistakes of a config file are lines under the sentence that names it."""
    try:
        read_settings(folder / "config.toml")
    except SettingsError as error:
        raise SettingsError(" ".join(str(error).splitlines())) from error


def mini(part: str, load: Any) -> Reader:
    file = f"{part}.safetensors"

    def write(folder: Path) -> None:
        shutil.copy(WEIGHTS / "mini" / file, folder / file)

    def read(folder: Path) -> None:
        load(folder / file)

    return Reader(f"mini {part}", file, write, read, StoredFileError, mutations.SAFETENSORS, share=0.03)


def host_readers() -> list[Reader]:
    """All of them."""
    file = core_readers.FILE
    return [
        Reader("pickled ip-adapter", "file.bin", write_pickled, lambda f: load_and_describe(f / "file.bin"), StoredFileError, mutations.PICKLE),
        Reader("loader, moa", file, core_readers.write_adapter("moa"), lambda f: load_and_describe(f / file), StoredFileError, mutations.SAFETENSORS),
        Reader("loader, ip-adapter", file, core_readers.write_ip_adapter("plus"), lambda f: load_and_describe(f / file), StoredFileError, mutations.SAFETENSORS),
        Reader("embeds", "file.ipadpt", write_embeds, lambda f: read_embeds(f / "file.ipadpt"), StoredFileError, mutations.PICKLE),
        Reader("face array", "file.npy", lambda f: np.save(f / "file.npy", np.ones((2, 8), np.float32)), lambda f: read_embeddings(f / "file.npy"), StoredFileError, mutations.ARRAY),
        Reader("face tensors", file, lambda f: save_file({"face": torch.ones(2, 8)}, f / file), lambda f: read_embeddings(f / file), StoredFileError, mutations.SAFETENSORS),
        Reader("clip header", file, write_clip, read_clip, StoredFileError, mutations.SAFETENSORS),
        Reader("config file", "config.toml", write_config, read_config, SettingsError, mutations.LINES, names_file=False),
        mini("unet", mini_files.load_unet), mini("clip", mini_files.load_text_encoder), mini("vae", mini_files.load_autoencoder),
    ]  # fmt: skip
