"""Folders of models that are renamed or deleted while the server runs: the lists of all nodes stay readable."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import subjects  # noqa: F401  (imports the pack)
from comfyui_moa.nodes import MoAExtension
from comfyui_moa.nodes.host.files.folders import SUBFOLDERS, register_adapter_folders
from comfyui_moa.nodes.host.files.listing import file_names

NAME = "mine.safetensors"


def choices() -> dict[str, list[Any]]:
    """The entries of all drop-downs, by node and input."""
    nodes = asyncio.run(MoAExtension().get_node_list())
    found = {
        f"{node.define_schema().node_id}.{i.id}": i.as_dict().get("options")
        for node in nodes
        for i in node.define_schema().inputs
    }
    return {name: options for name, options in found.items() if options is not None}


@pytest.fixture
def models(base: Path) -> Path:
    """The folders of models, each with a file."""
    register_adapter_folders()
    for folder in ("moa", "ipadapter", *(f"moa/{name}" for name, _ in SUBFOLDERS.values())):
        path = Path(folder_paths.models_dir) / folder
        path.mkdir(parents=True, exist_ok=True)
        (path / NAME).write_bytes(b"")
    return Path(folder_paths.models_dir)


@pytest.mark.parametrize("folder", ["moa", "moa/subjects", "moa/faces", "moa/routers", "ipadapter"])
def test_the_lists_of_all_nodes_can_be_read_while_a_folder_is_away(models: Path, folder: str):
    before = choices()
    away = models / "away"
    (models / folder).rename(away)
    try:
        during = choices()
    finally:
        away.rename(models / folder)
    assert choices() == before
    assert during.keys() == before.keys() and during != before
    lost = {str(entry) for name in before for entry in set(before[name]) - set(during[name])}
    assert any(entry.endswith(NAME) for entry in lost), lost  # other tests may have left further files


def test_a_folder_that_was_never_there_has_no_files(models: Path, tmp_path: Path):
    assert NAME in file_names("moa")
    folder_paths.add_model_folder_path("moa_nowhere", str(tmp_path / "nowhere"))
    assert file_names("moa_nowhere") == []
