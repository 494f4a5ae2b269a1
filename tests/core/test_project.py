"""What the Comfy registry requires of the project's metadata."""

import re
from pathlib import Path

import pytest
from PIL import Image

from devtools import archive

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def field(name: str) -> str:
    found = re.search(rf'^{re.escape(name)} = "(.*)"$', TEXT, re.MULTILINE)
    assert found, f"pyproject.toml has no {name}"
    return found.group(1)


def strings(name: str) -> list[str]:
    found = re.search(rf"^{name} = \[(.*?)\]", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"pyproject.toml has no {name}"
    return re.findall(r'"([^"]*)"', found.group(1))


def test_the_name_is_one_the_registry_takes():
    name = field("name")
    assert re.fullmatch(r"[a-z][a-z0-9._-]*[a-z0-9]", name)
    assert len(name) < 100
    assert "comfyui" not in name


def test_versions_have_three_parts():
    assert re.fullmatch(r"\d+\.\d+\.\d+", field("version"))
    assert re.fullmatch(r">=\d+\.\d+\.\d+", field("requires-comfyui"))


def test_the_oldest_comfyui_is_one_that_the_tests_run_on():
    releases = (ROOT / "devtools" / "host-sources.txt").read_text(encoding="utf-8")
    oldest = re.search(r"^([\d.]+) ", releases, re.MULTILINE)
    assert oldest and field("requires-comfyui") == f">={oldest.group(1)}"


def test_required_fields_are_there():
    for name in ("description", "requires-python", "PublisherId", "DisplayName", "Repository"):
        assert field(name)
    assert len(field("description")) <= 200
    assert 'license = { file = "LICENSE" }' in TEXT
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "shape"), [("Icon", (1, 1)), ("Banner", (21, 9))])
def test_icon_and_banner_have_the_registrys_shapes(name: str, shape: tuple[int, int]):
    start = field("Repository").replace("github.com", "raw.githubusercontent.com") + "/main/"
    assert field(name).startswith(start)
    with Image.open(ROOT / field(name).removeprefix(start)) as picture:
        width, height = picture.size
    assert abs(width * shape[1] - height * shape[0]) < 21
    assert name == "Banner" or width <= 400


def test_the_web_folder_is_declared_once():
    assert not re.search(r"^web\s*=", TEXT, re.MULTILINE)
    assert "WEB_DIRECTORY" in (ROOT / "__init__.py").read_text(encoding="utf-8")


def test_nothing_is_required_beyond_the_host():
    assert strings("dependencies") == []
    assert not (ROOT / "requirements.txt").exists()
    assert not (ROOT / "install.py").exists()


@pytest.mark.parametrize("group", ["train", "client", "dev"])
def test_groups_give_lower_bounds(group: str):
    """And an upper one only before a major version that took something away, as OpenCV 5 its cascades."""
    assert strings(group)
    for requirement in strings(group):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+(,<[0-9]+)?", requirement)


def test_the_archive_has_the_licences_of_what_is_in_it():
    files = set(archive.archived_files())
    assert {"LICENSE", "weights/mini/NOTICE", "weights/mini/LICENSE-APACHE-2.0.txt"} <= files
    assert "example_workflows/references/moa_man.png" in files and not any(name.startswith("tests/") for name in files)


def test_the_changelog_lists_this_version():
    assert f"## {field('version')}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_commits_are_checked_by_the_ruff_of_lint():
    pinned = re.search(
        r"^ruff==(.+)$", (ROOT / "devtools" / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert pinned and f"ruff-pre-commit\n    rev: v{pinned.group(1)} " in hooks
