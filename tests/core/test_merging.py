"""The mean of adapter files: its tensors, its record, and what is refused."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from routed import spec
from safetensors.torch import load_file

from moa_attention import MoAAdapter, MoAConfig, read_header, save_adapter
from moa_attention.formats.errors import StoredFileError
from moa_attention.formats.merging import merge_adapters

LAYERS = (spec("input_1_0_attn1", 0, 16, 16, 2, False), spec("input_1_0_attn2", 0, 16, 12, 2, False))
CONFIG = MoAConfig("sd15", LAYERS, 12, "clip-vit-large-patch14", 8, "own", rank=2)


def write(
    path: Path,
    seed: int,
    config: MoAConfig = CONFIG,
    licence: str = "MIT",
    dtype: torch.dtype | None = None,
    **more: Any,
) -> Path:
    torch.manual_seed(seed)
    adapter = MoAAdapter(config)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    save_adapter(
        adapter, path, licence=licence, provenance={"base": "a.safetensors", "step": seed, **more}, dtype=dtype
    )
    return path


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, rank=0)], ids=["low rank", "whole"])
def test_the_mean_is_that_of_every_tensor(config: MoAConfig, tmp_path: Path):
    files = [write(tmp_path / f"{seed}.safetensors", seed, config) for seed in range(3)]
    merge_adapters(files, [1, 0, 3], tmp_path / "mean.safetensors")
    found, parts = load_file(tmp_path / "mean.safetensors"), [load_file(file) for file in files]
    assert found.keys() == parts[0].keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, 0.25 * parts[0][name] + 0.75 * parts[2][name], rtol=1e-6, atol=1e-6)


def test_the_record_holds_those_of_all_files(tmp_path: Path):
    one = write(tmp_path / "one.safetensors", 1, licence="MIT", dtype=torch.float16)
    two = write(tmp_path / "two.safetensors", 2, licence="CC0-1.0")
    merge_adapters([one, two], [2, 1], tmp_path / "mean.safetensors")
    header = read_header(tmp_path / "mean.safetensors")
    assert (header.licence, header.config) == ("MIT; CC0-1.0", CONFIG)
    assert header.provenance["merged"] == "0.667 × one.safetensors, 0.333 × two.safetensors"
    assert header.provenance["base"] == "a.safetensors"
    assert [each["provenance"]["step"] for each in header.provenance["sources"]] == [1, 2]
    assert all(len(each["sha256"]) == 64 for each in header.provenance["sources"])
    assert {tensor.dtype for tensor in load_file(tmp_path / "mean.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"config": replace(CONFIG, rank=4, router="mlp")}, "rank 4 and 2"),
        ({"config": replace(CONFIG, layers=LAYERS[:1])}, "another kind than .*layers"),
        ({"base_sha256": "b"}, "was trained for another base model than .*: their base_sha256 differ"),
    ],
)
def test_adapters_of_another_kind_are_refused(change: dict[str, Any], message: str, tmp_path: Path):
    one = write(tmp_path / "one.safetensors", 1, base_sha256="a")
    two = write(tmp_path / "two.safetensors", 2, **change)
    with pytest.raises(StoredFileError, match=f"two.safetensors.*{message}"):
        merge_adapters([one, two], [1, 1], tmp_path / "mean.safetensors")
    assert not (tmp_path / "mean.safetensors").exists()


def test_a_file_that_is_not_finite_is_named(tmp_path: Path):
    files = [write(tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    broken = MoAAdapter(CONFIG)
    torch.nn.init.constant_(next(broken.parameters()), float("nan"))
    save_adapter(broken, files[1], licence="", provenance={})
    with pytest.raises(StoredFileError, match=r"1\.safetensors' contains NaN or infinite values in '"):
        merge_adapters(files, [1, 1], tmp_path / "mean.safetensors")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1], "2 files and 1 weights"),
        ([1, -1], "0 or more"),
        ([0, 0], "not all of them 0"),
        ([1, float("nan")], "0 or more"),
    ],
)
def test_weights_that_are_none_are_refused(weights: Sequence[float], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        merge_adapters([tmp_path / "a", tmp_path / "b"], weights, tmp_path / "mean.safetensors")


def test_one_file_has_no_mean(tmp_path: Path):
    with pytest.raises(ValueError, match="at least two adapter files"):
        merge_adapters([tmp_path / "a"], [1], tmp_path / "mean.safetensors")
