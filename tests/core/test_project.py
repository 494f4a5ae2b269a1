"""What the Comfy registry asks of the project's metadata."""

import re
from pathlib import Path

import pytest

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


def test_required_fields_are_there():
    for name in ("description", "requires-python", "PublisherId", "DisplayName", "Repository"):
        assert field(name)
    assert len(field("description")) <= 200
    assert 'license = { file = "LICENSE" }' in TEXT
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_web_folder_is_declared_once():
    assert not re.search(r"^web\s*=", TEXT, re.MULTILINE)
    assert "WEB_DIRECTORY" in (ROOT / "__init__.py").read_text(encoding="utf-8")


def test_nothing_is_required_beyond_the_host():
    assert strings("dependencies") == []
    assert not (ROOT / "requirements.txt").exists()
    assert not (ROOT / "install.py").exists()


@pytest.mark.parametrize("extra", ["train", "dev"])
def test_extras_give_lower_bounds(extra: str):
    """And an upper one only before a major version that took something away, as OpenCV 5 its cascades."""
    assert strings(extra)
    for requirement in strings(extra):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9.]+(,<[0-9]+)?", requirement)


def test_the_changelog_knows_this_version():
    assert f"## {field('version')}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
