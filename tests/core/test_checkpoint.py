"""The adapter file: what is saved comes back, and everything else is refused with a message that helps."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from routed import spec
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from moa_attention import MoAAdapter, MoAConfig, load_adapter, read_header, save_adapter
from moa_attention.formats.config import config_from_json, config_to_json
from moa_attention.formats.errors import StoredFileError
from moa_attention.method.spec import EMBEDDED_ENCODER

LAYERS = (
    spec("input_1_0_attn1", 0, 16, 16, 2, False),
    spec("input_1_0_attn2", 0, 16, 12, 2, False),
    spec("middle_0_0_attn2", 1, 32, 12, 4, True),
)
CONFIG = MoAConfig("sd15", LAYERS, 12, EMBEDDED_ENCODER, 8, "own")


def random_adapter(config: MoAConfig = CONFIG) -> MoAAdapter:
    torch.manual_seed(0)
    return MoAAdapter(config)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    save_adapter(random_adapter(), path, licence="CC0-1.0", provenance={"steps": 7, "data": "drawn"})
    return path


def rewrite(file: Path, metadata: dict[str, str | None] | None = None, tensors: Callable | None = None) -> Path:
    """The same file with other metadata (None removes an entry) or tensors."""
    with safe_open(file, framework="pt") as opened:
        header = {**opened.metadata(), **(metadata or {})}
    contents = load_file(file)
    if tensors is not None:
        tensors(contents)
    save_file(contents, file, metadata={k: v for k, v in header.items() if v is not None})
    return file


def test_save_and_load_are_identity(file: Path):
    saved, loaded = random_adapter(), load_adapter(file)
    assert loaded.config == CONFIG
    assert saved.state_dict().keys() == loaded.state_dict().keys()
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_precision_on_disk_is_kept(tmp_path: Path):
    path = tmp_path / "half.safetensors"
    save_adapter(random_adapter(), path, licence="", provenance={}, dtype=torch.float16)
    loaded = load_adapter(path)
    for name, tensor in random_adapter().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.half()), name


def test_header_describes_the_file(file: Path):
    header = read_header(file)
    assert header.config == CONFIG
    assert header.licence == "CC0-1.0"
    assert header.provenance == {"steps": 7, "data": "drawn"}
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["format"] == "moa-adapter"
    assert metadata["format_version"] == "1"
    assert metadata["base"] == "sd15"
    assert metadata["image_encoder"] == EMBEDDED_ENCODER
    assert json.loads(metadata["config"])["layers"][2]["name"] == "middle_0_0_attn2"


def test_saving_leaves_no_partial_file_and_replaces_the_old_one(file: Path):
    save_adapter(random_adapter(), file, licence="MIT", provenance={})
    assert [p.name for p in file.parent.iterdir()] == [file.name]
    assert read_header(file).licence == "MIT"


def test_config_survives_json():
    assert config_from_json(config_to_json(CONFIG)) == CONFIG
    assert CONFIG.depth == 2


def test_an_adapter_without_embedded_encoder_has_none(tmp_path: Path):
    config = MoAConfig("sd15", LAYERS, 12, "clip-vit-large-patch14", 8)
    path = tmp_path / "clip.safetensors"
    save_adapter(random_adapter(config), path, licence="", provenance={})
    loaded = load_adapter(path)
    assert loaded.encoder is None
    assert not any(name.endswith("to_out.weight") for name in loaded.state_dict())


def refused(path: Path, *words: str) -> None:
    with pytest.raises(StoredFileError) as caught:
        load_adapter(path)
    message = str(caught.value)
    for word in (str(path), *words):
        assert re.search(re.escape(word), message), f"{word!r} is not in: {message}"


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_truncated_file(file: Path, keep: float):
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])
    refused(file, "cannot be read as safetensors", "download it again")


def test_random_bytes(file: Path):
    file.write_bytes(bytes(torch.randint(0, 256, (5000,), generator=torch.Generator().manual_seed(1)).tolist()))
    refused(file, "cannot be read as safetensors", "damaged")


def test_missing_file(tmp_path: Path):
    refused(tmp_path / "nowhere.safetensors", "cannot be read")


def test_a_lora_is_no_adapter(file: Path):
    save_file({"lora_up.weight": torch.zeros(2, 2)}, file)
    refused(file, "not a MoA adapter", "expected format 'moa-adapter'", "no format entry", "loaders of their own")


def test_another_format(file: Path):
    refused(rewrite(file, {"format": "ip-adapter"}), "expected format 'moa-adapter'", "found format 'ip-adapter'")


@pytest.mark.parametrize("version", ["2", None])
def test_another_version(file: Path, version: str | None):
    refused(rewrite(file, {"format_version": version}), f"'{version}'", "reads '1'", "Update the extension")


def changed(**fields: object) -> str:
    return json.dumps({**json.loads(config_to_json(CONFIG)), **fields})


@pytest.mark.parametrize(
    "config",
    [
        None,
        "{",
        "[]",
        "{}",
        changed(layers=[]),
        changed(layers=[{"name": "input_1_0_attn1"}]),
        changed(layers=3),
        changed(colour="red"),
    ],
)
def test_malformed_config(file: Path, config: str | None):
    refused(rewrite(file, {"config": config}), "malformed header", "publisher")


@pytest.mark.parametrize("provenance", ["{", "not json"])
def test_malformed_provenance(file: Path, provenance: str):
    refused(rewrite(file, {"provenance": provenance}), "malformed header")


NAME = "layers.input_1_0_attn2.to_k.weight"


def test_missing_tensor(file: Path):
    refused(rewrite(file, tensors=lambda t: t.pop(NAME)), "does not contain the tensors", "missing", NAME)


def test_unexpected_tensor(file: Path):
    extra = {"layers.input_9.to_q.weight": torch.zeros(1)}
    refused(rewrite(file, tensors=lambda t: t.update(extra)), "unexpected", *extra)


def test_misshapen_tensor(file: Path):
    refused(
        rewrite(file, tensors=lambda t: t.update({NAME: torch.zeros(16, 13)})), f"{NAME} (16, 13) instead of (16, 12)"
    )


def test_no_tensor_at_all(file: Path):
    refused(rewrite(file, tensors=dict.clear), "does not contain the tensors")
