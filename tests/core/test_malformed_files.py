"""Malformed files: one check of types, ranges, names and shapes, before a tensor is read or a module is built."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import ip_files
import pytest
import torch
from routed import spec
from safetensors.torch import save_file
from torch import Tensor

from moa_attention import MoAAdapter, MoAConfig, load_adapter, save_adapter
from moa_attention.formats.config import config_to_json, read_config
from moa_attention.formats.errors import StoredFileError, printable
from moa_attention.formats.ip_adapter.importing import flatten
from moa_attention.formats.registry import load_stored
from moa_attention.formats.routers import attach_routers, expert_name, load_routers, save_routers
from moa_attention.formats.subject import StoredSubject, load_subject, save_subject
from moa_attention.formats.tensors import HEADER_BYTES, StoredFile, from_memory, open_stored
from moa_attention.method.factory import PLAIN

LAYERS = (spec("input_1_0_attn1", 0, 16, 16, 2, False), spec("middle_0_0_attn2", 1, 32, 12, 4, True))
CONFIG = MoAConfig("sd15", LAYERS, 12, "clip-vit-large-patch14", 8)


def adapter() -> MoAAdapter:
    torch.manual_seed(0)
    return MoAAdapter(CONFIG)


def header(**entries: Any) -> dict[str, str]:
    base = {"format": "moa-adapter", "format_version": "1", "config": config_to_json(CONFIG)}
    return {**base, **{name: entry if isinstance(entry, str) else json.dumps(entry) for name, entry in entries.items()}}


def refused(path: Path, message: str) -> None:
    with pytest.raises(StoredFileError) as caught:
        load_adapter(path)
    text = str(caught.value)
    assert text.startswith(f"'{path}' ") and "\n" not in text and len(text) < 1000
    assert re.search(message, text), text


def config(**fields: Any) -> dict[str, Any]:
    return {**json.loads(config_to_json(CONFIG)), **fields}


def with_layer(**fields: Any) -> dict[str, Any]:
    changed = config()
    changed["layers"][1] |= fields
    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (config(encoder_tail=10**6), "config.encoder_tail must be a whole number from 0 to 64, found 1000000"),
        (config(rank=10**12), "config.rank must be a whole number from 0 to 8191"),
        (config(rank=True), "config.rank must be a whole number"),
        (config(rank=1.0), "config.rank must be a whole number"),
        (config(image_width=0), "config.image_width must be a whole number from 1"),
        (config(text_width="12"), "config.text_width must be a whole number"),
        (config(router="best"), "config.router must be linear or mlp or none, found 'best'"),
        (config(image_encoder="clip\nlicence: MIT"), "config.image_encoder must be a name of 1 to 200"),
        (config(layers=config()["layers"] * 25_000), "config.layers must be a list of 1 to 1024 layers"),
        (config(layers=[[]]), r"config.layers\[0\] must be a JSON object, found list"),
        (config(layers=config()["layers"] + config()["layers"][:1]), "two layers with one name"),
        (with_layer(name="middle.0.0.attn2"), r"config.layers\[1\].name must be like input_1_0_attn2"),
        (with_layer(heads=5), "middle_0_0_attn2 is 32 wide, which 5 heads do not divide"),
        (with_layer(context=13), "the context of middle_0_0_attn2 is 13 wide, its keys need 12"),
        (with_layer(supervised=1), r"config.layers\[1\].supervised must be true or false"),
        (with_layer(kind="self"), "stage and kind, which belong to its name"),
        (config(image_tokens=4, fusion="fastcomposer"), "but FastComposer's fusion gives a subject one token"),
        (config(encoder_tail=2, encoder_width=32), "encoder_width is 32, not a multiple of the heads' 64"),
    ],
)
def test_claims_of_the_config_are_checked_before_anything_is_built(tmp_path: Path, changed: Any, message: str):
    path = tmp_path / "a.safetensors"
    save_file(adapter().state_dict(), path, header(config=changed))
    begin = time.process_time()
    refused(path, message)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("entry", ["[" * 100_000, '{"a":' * 2_000 + "1" + "}" * 2_000, "[1, 2]", '"MIT"', "{"])
@pytest.mark.parametrize("name", ["config", "provenance"])
def test_entries_of_another_type_or_depth_are_refused(tmp_path: Path, name: str, entry: str):
    save_file(adapter().state_dict(), tmp_path / "a.safetensors", header(**{name: entry}))
    if name == "provenance" and entry.startswith('{"a"'):
        return  # how deep JSON may be depends on the Python version
    refused(tmp_path / "a.safetensors", "has a malformed header: ")


def test_whole_numbers_are_no_weights(tmp_path: Path):
    weights = {name: t.to(torch.int32) for name, t in adapter().state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors", header())
    refused(tmp_path / "a.safetensors", "as int32; save it as float16 or float32")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float, precision: torch.dtype):
    weights = {name: t.to(precision) for name, t in adapter().state_dict().items()}
    save_file(weights, tmp_path / "a.safetensors", header())
    load_adapter(tmp_path / "a.safetensors")
    name = "layers.middle_0_0_attn2.to_k.weight"
    weights[name] = (
        torch.full_like(weights[name], 0.5, dtype=torch.float32).index_fill(0, torch.tensor(3), value).to(precision)
    )
    save_file(weights, tmp_path / "a.safetensors", header())
    refused(tmp_path / "a.safetensors", f"contains NaN or infinite values in '{name}'")


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path):
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    for path, message in (
        (pipe, "is not a regular file"),
        (tmp_path, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "absent", "cannot be read"),
    ):
        refused(path, message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        ((HEADER_BYTES + 1).to_bytes(8, "little") + bytes(64), "its header would have 16777217 bytes"),
        (b"", "cannot be read as safetensors"),
    ],
)
def test_what_failed_downloads_leave_has_its_own_sentence(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path / "a.safetensors", message)


def raw(path: Path, tensors: dict[str, Any]) -> Path:
    text = json.dumps({"__metadata__": header(), **tensors}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


@pytest.mark.parametrize(
    ("shape", "message"),
    [([0, 2**62], "'a' has no values"), ([0], "'a' has no values"), ([1] * 9, "'a' has 9 dimensions; at most 8")],
)
def test_shapes_of_the_header_are_checked(tmp_path: Path, shape: list[int], message: str):
    path, size = tmp_path / "a.safetensors", 0 if 0 in shape else 4
    raw(path, {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}})
    path.write_bytes(path.read_bytes() + bytes(size))
    refused(path, message)


def test_too_many_tensors_are_refused(tmp_path: Path):
    save_file({str(i): torch.zeros(1) for i in range(2**14 + 1)}, tmp_path / "a.safetensors")
    refused(tmp_path / "a.safetensors", "has 16385 tensors; at most 16384 are read")


def test_weights_are_read_after_the_check_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.safetensors"
    save_adapter(adapter(), path, licence="", provenance={})
    stored = open_stored(path)
    read: list[str] = []
    inner = stored.read
    recorded = StoredFile(path, stored.header, stored.tensors, lambda names: read.extend(names) or inner(names))
    load_stored(recorded, PLAIN)
    assert sorted(read) == sorted(adapter().state_dict())
    read.clear()
    missing = {name: t for name, t in stored.tensors.items() if not name.endswith("to_q.weight")}
    with pytest.raises(StoredFileError, match="missing: layers.input_1_0_attn1.to_q.weight"):
        load_stored(StoredFile(path, stored.header, missing, recorded.read), PLAIN)
    assert read == []


def test_a_file_that_changes_after_the_check_is_refused(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_adapter(adapter(), path, licence="", provenance={})
    stored = open_stored(path)
    save_file({name: torch.zeros(3) for name in stored.tensors}, path)
    with pytest.raises(StoredFileError, match="changed while it was read"):
        load_stored(stored, PLAIN)


def test_loaded_weights_do_not_follow_the_file(tmp_path: Path):
    """Weights are copies: a file that is overwritten in place, or cut, changes nothing that is loaded."""
    moa, routers, subject = (tmp_path / f"{name}.safetensors" for name in ("moa", "routers", "subject"))
    save_adapter(adapter(), moa, licence="", provenance={})
    loaded = load_adapter(moa)
    attach_routers(loaded, "linear")
    save_routers(loaded, routers, expert=expert_name(loaded), licence="", provenance={})
    load_routers(loaded, routers)
    save_subject(StoredSubject(torch.ones(1, 8), "e", "man", 1, 0, torch.ones(2, 2, 3, dtype=torch.uint8)), subject)
    found = load_subject(subject)
    assert found.thumbnail is not None
    tensors = [*loaded.state_dict().values(), found.features, found.thumbnail]
    before = [t.clone() for t in tensors]
    for path in (moa, routers, subject):
        with path.open("r+b") as file:
            file.write(b"\xff" * path.stat().st_size)
            file.truncate(10)
    assert all(torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize("change", ["missing", "extra", "expert"])
def test_a_router_file_holds_exactly_the_routers(tmp_path: Path, change: str):
    path, made = tmp_path / "r.safetensors", adapter()
    attach_routers(made, "mlp")
    tensors = {name: t.clone() for name, t in made.state_dict().items() if ".router." in name}
    first = min(tensors)
    if change == "missing":
        del tensors[first]
    else:
        tensors["layers.input_1_0_attn1.to_q.weight" if change == "expert" else f"{first}.more"] = torch.ones(16, 16)
    entries = {"format": "moa-routers", "format_version": "1", "router": "mlp", "expert": expert_name(made)}
    save_file(tensors, path, entries)
    fresh = adapter()
    before = {name: t.clone() for name, t in fresh.state_dict().items()}
    message = "missing: " + re.escape(first) if change == "missing" else "unexpected: layers.input_1_0_attn1"
    with pytest.raises(StoredFileError, match=message):
        load_routers(fresh, path)
    assert all(torch.equal(t, before[name]) for name, t in fresh.state_dict().items())
    assert fresh.config == CONFIG


SUBJECT = {
    "format": "moa-subject",
    "format_version": "1",
    "encoder": "clip",
    "word": "man",
    "occurrence": "1",
    "tokens": "0",
}


@pytest.mark.parametrize(
    ("entries", "tensors", "message"),
    [
        ({"occurrence": "-5"}, {}, "'occurrence' must be a whole number from 1 to 100, found '-5'"),
        ({"occurrence": "9" * 5000}, {}, "'occurrence' must be"),
        ({"tokens": "3"}, {}, "3 image tokens do not divide a feature 8 wide"),
        ({"word": " "}, {}, "'word' must be"),
        ({"word": "a\nb"}, {}, r"'word' must be .* found 'a\\\\nb'"),
        ({}, {"features": torch.zeros(8)}, "'features' has 1 dimensions instead of 2"),
        ({}, {"features": torch.zeros(2, 8)}, "found features 2 × 8"),
        ({}, {"features": torch.zeros(1, 8, dtype=torch.int64)}, "int64"),
        ({}, {"features": torch.full((1, 8), torch.nan)}, "NaN or infinite"),
        ({}, {"more": torch.zeros(1)}, "found more"),
        ({}, {"thumbnail": torch.zeros(4, 4, 2, dtype=torch.uint8)}, "found 4 × 4 × 2, uint8"),
        ({}, {"thumbnail": torch.zeros(4, 4, 3)}, "found 4 × 4 × 3, float32"),
        ({}, {"thumbnail": torch.zeros(1, 12_000, 3, dtype=torch.uint8)}, "at most 1024 × 1024 × 3, found 1 × 12000"),
    ],
)
def test_subjects_are_checked_at_load(tmp_path: Path, entries: dict, tensors: dict, message: str):
    path = tmp_path / "s.safetensors"
    save_file({"features": torch.ones(1, 8), **tensors}, path, {**SUBJECT, **entries})
    with pytest.raises(StoredFileError, match=message) as caught:
        load_subject(path)
    assert str(caught.value).startswith(f"'{path}' ")


def ip_adapter(**options: Any) -> dict[str, Tensor]:
    def make(*shape: int) -> Tensor:
        return torch.ones(shape)

    return flatten(ip_files.nested("plus", [64] * 16, 24, 48, make=make, **options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ip_adapter.x.to_k_ip.weight": torch.ones(64, 48)}, "layers are not numbered: 'ip_adapter.x.to_k_ip.weight'"),
        ({"ip_adapter.1.to_k_ip.weight": torch.tensor(1.0)}, "has 0 dimensions instead of 2"),
        ({"ip_adapter.1.to_k_ip.weight": torch.ones(0, 48)}, r"is malformed: .* is \(0, 48\)"),
        ({"ip_adapter.1.to_k_ip.weight": torch.ones(60, 48)}, "60 wide, which 8 heads do not divide"),
        (
            {"ip_adapter.1.to_k_ip.weight": torch.ones(64, 47)},
            "of another shape: image_proj.norm_out.bias .* and 32 more",
        ),
        ({"ip_adapter.1.to_q_ip.weight": torch.ones(64, 48)}, "unexpected: ip_adapter.1.to_q_ip.weight"),
        ({"ip_adapter.1.to_k_ip.weight": torch.ones(1, 1).expand(64, 48)}, "is malformed"),
        ({"ip_adapter.1.to_k_ip.weight": torch.ones(64, 48).to_sparse()}, "in a form that is not read"),
        ({"image_proj.latents": torch.ones(4)}, "incomplete image projection"),
        ({"image_proj.proj_in.weight": torch.ones(60, 24)}, "60 wide, which heads of 64 do not divide"),
        ({"image_proj.layers.0.1.1.weight": None}, "incomplete image projection"),
        ({"image_proj.proj_out.bias": None}, "missing: image_proj.proj_out.bias"),
    ],
)
def test_malformed_ip_adapters_are_refused(change: dict[str, Tensor | None], message: str):
    tensors = {name: t for name, t in {**ip_adapter(), **change}.items() if t is not None}
    with pytest.raises(StoredFileError, match=message) as caught:
        load_stored(from_memory(Path("ip.bin"), tensors), PLAIN)
    assert str(caught.value).startswith("'ip.bin' ")


def test_entries_without_tensors_are_left_out():
    nested = {"image_proj": {"a": torch.ones(1), "step": 3}, "ip_adapter": {1: {}}, "global_step": 5, 7: torch.ones(1)}
    assert sorted(flatten(nested)) == ["7", "image_proj.a"]


def test_texts_of_files_stay_on_one_line():
    assert printable("CC0\nlicence: MIT\x00\u202e") == r"CC0\nlicence: MIT\x00\u202e"
    assert printable("Ünïcode and a no-break\u00a0space") == "Ünïcode and a no-break\u00a0space"
    assert len(printable("x" * 10_000, 50)) == 50


def test_the_limits_leave_room_for_the_largest_models():
    wide = {"hidden": 2048, "context": 2048, "heads": 32, "supervised": True}
    layers = [{"name": f"middle_0_{n}_attn1", "depth": n, **wide} for n in range(1000)]
    entry = {
        "base": "x",
        "layers": layers,
        "text_width": 4096,
        "image_encoder": "e",
        "image_width": 65535,
        "rank": 4096,
    }
    assert read_config(entry).depth == 1000
