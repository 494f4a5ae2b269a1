"""A run over several sessions: its states, its log, and what its settings may change."""

import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from toy import config, draw, ignore_log, setup, stop_after

from moa_attention import MoAAdapter
from moa_attention.formats.atomic import replacing
from moa_attention.formats.tensors import StoredFileError, read_metadata
from moa_attention.training.config import AdapterConfig, PictureConfig, TrainConfig
from moa_attention.training.loop import train
from moa_attention.training.saved.files import at_step, go_back, previous, states
from moa_attention.training.saved.log import RunLog, read_log, read_losses
from moa_attention.training.saved.settings import RunMismatch, RunSettings, check_run, read_run
from moa_attention.training.saved.state import mean_weights


def session(state: Path, steps: int, keep_going: Any = lambda: True, **options: Any) -> list[int]:
    """Train the toy: -> the steps that were done."""
    adapter, base = setup()
    done: list[int] = []
    settings = config(steps, **{"save_every": 2, **options})
    train(adapter, base, draw, settings, state, lambda step, *_: done.append(step), keep_going)
    return done


def step_of(path: Path) -> int:
    stored = read_run(path)
    return 0 if stored is None else stored.step


def same(a: Path, b: Path) -> bool:
    ours, theirs = load_file(a), load_file(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_last_two_states_are_kept_and_every_nth_for_ever(tmp_path: Path):
    state = tmp_path / "state.safetensors"
    session(state, 7, keep_every=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "state.previous.safetensors", "state.safetensors", "state.step0000003.safetensors",
        "state.step0000006.safetensors",
    ]  # fmt: skip
    assert [step_of(p) for p in sorted(tmp_path.iterdir())] == [6, 7, 3, 6]
    assert session(state, 7, keep_every=3) == [], "a finished run"
    assert step_of(previous(state)) == 6
    other = tmp_path / "again" / "state.safetensors"
    other.parent.mkdir()
    other.write_bytes(at_step(state, 3).read_bytes())
    assert session(other, 7) == [4, 5, 6, 7]
    assert same(state, other)


@pytest.mark.parametrize("step", [3, 6, 7])
def test_a_run_goes_back_to_a_kept_state_and_loses_none(tmp_path: Path, step: int):
    state = tmp_path / "state.safetensors"
    session(state, 7, keep_every=3)
    last = load_file(state)
    assert list(states(state)) == [3, 6, 7]
    go_back(state, step)
    assert step_of(state) == step and list(states(state)) == [3, 6, 7]
    kept = load_file(at_step(state, 7))
    assert all(torch.equal(kept[name], last[name]) for name in last)
    assert session(state, 7, keep_every=3) == list(range(step + 1, 8)), "the same steps again, to the same bits"
    assert same(state, at_step(state, 7))
    with pytest.raises(KeyError):
        go_back(state, 5)


def test_the_mean_of_states_is_of_their_averaged_weights(tmp_path: Path):
    state = tmp_path / "state.safetensors"
    session(state, 6, keep_every=3, ema_decay=0.9)
    first, second = (load_file(at_step(state, step)) for step in (3, 6))
    mean = mean_weights([at_step(state, 3), at_step(state, 6)])
    assert {f"average.module.{name}" for name in mean} == {n for n in first if n.startswith("average.module.")}
    for name, tensor in mean.items():
        averaged = f"average.module.{name}"
        torch.testing.assert_close(tensor, (first[averaged] + second[averaged]) / 2)
    other = tmp_path / "plain.safetensors"
    session(other, 2, ema_decay=0.0)
    plain = load_file(other)
    assert all(torch.equal(plain[f"model.{name}"], tensor) for name, tensor in mean_weights([other]).items())


@pytest.mark.parametrize("damage", ["cut", "empty", "absent"])
def test_a_damaged_state_is_named_and_the_one_before_resumes_to_the_same_bits(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
):
    state, unbroken = tmp_path / "state.safetensors", tmp_path / "unbroken.safetensors"
    session(state, 7, stop_after(5))
    content = state.read_bytes()
    if damage == "absent":
        state.unlink()
    else:
        state.write_bytes(content[:-9] if damage == "cut" else b"")
    assert session(state, 7) == [5, 6, 7], "from the state of step 4"
    assert (
        f"'{state}' is damaged or missing. The run resumes from the previous state, '{previous(state)}'" in caplog.text
    )
    session(unbroken, 7)
    assert same(state, unbroken)
    assert step_of(previous(state)) == 6


@pytest.mark.parametrize("lacking", ["step", "plain", "optimiser.0.step"])
def test_an_incomplete_state_is_named_and_the_one_before_resumes(tmp_path: Path, lacking: str):
    """A part of its header, or a tensor without which the optimiser cannot go on."""
    state = tmp_path / "state.safetensors"
    session(state, 5)
    metadata, tensors = dict(read_metadata(state)), load_file(state)
    assert (metadata if lacking in metadata else tensors).pop(lacking) is not None
    save_file(tensors, state, metadata=metadata)
    with pytest.raises(
        StoredFileError, match=f"'{state}' is no complete state of a run .*resume from the state before"
    ):
        session(state, 7)
    state.unlink()
    assert session(state, 7) == [5, 6, 7]


def test_a_run_whose_states_are_all_damaged_is_refused_by_name(tmp_path: Path):
    state = tmp_path / "state.safetensors"
    session(state, 4)
    for path in (state, previous(state)):
        path.write_bytes(b"nothing")
    with pytest.raises(StoredFileError, match=rf"'{state}' and every other state of this run are cut or damaged"):
        session(state, 5)


def test_what_may_change_changes_and_is_kept_with_the_state(tmp_path: Path):
    state = tmp_path / "state"
    session(state, 4, learning_rate=1e-2, batch_size=2)
    stored = read_run(state)
    assert stored is not None
    now = RunSettings.of(config(6, learning_rate=1e-3, batch_size=4, save_every=2))
    assert check_run(state, stored, now, 6) == [
        "steps was 4 and is 6 from step 5 on.",
        "batch_size was 2 and is 4 from step 5 on.",
        "learning_rate was 0.01 and is 0.001 from step 5 on.",
    ]
    assert session(state, 6, learning_rate=1e-3, batch_size=4) == [5, 6]
    session(state, 8, learning_rate=1e-3, batch_size=4)
    stored = read_run(state)
    assert stored is not None and stored.settings["learning_rate"] == 1e-3
    assert stored.changes == [
        {"step": 4, "steps": [4, 6], "batch_size": [2, 4], "learning_rate": [0.01, 0.001]},
        {"step": 6, "steps": [6, 8]},
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"optimiser": "adafactor"}, "optimiser adamw, now adafactor. Use the earlier values, or start another run"),
        ({"only_routers": True}, "only_routers False, now True"),
        ({"steps": 3}, "has done 4 steps, but steps is 3. It must not be lower"),
    ],
)
def test_what_must_not_change_is_refused_in_one_sentence(tmp_path: Path, changed: dict[str, Any], message: str):
    state = tmp_path / "state"
    session(state, 4)
    before = state.read_bytes()
    with pytest.raises(RunMismatch, match=message):
        session(state, **{"steps": 6, **changed})
    assert state.read_bytes() == before


def test_the_fields_that_a_run_keeps_and_the_names_of_tables():
    assert RunSettings.of(TrainConfig(steps=1)).fixed == {"optimiser", "only_routers"}
    tables = RunSettings.of(adapter=AdapterConfig(), data=PictureConfig())
    assert tables.fixed == {"adapter.rank", "adapter.router", "adapter.image_tokens", "adapter.output_projection"}
    assert tables.values["data.side"] == 512
    assert tables.with_values({"model": "x"}, fixed=True).fixed == {*tables.fixed, "model"}


def test_the_average_may_be_switched_on_and_off(tmp_path: Path):
    state = tmp_path / "state"
    session(state, 2, ema_decay=0.0)
    assert session(state, 4, ema_decay=0.9) == [3, 4]
    tensors = load_file(state)
    weight = "layers.middle_0_0_attn2.to_v.weight"
    assert not torch.equal(tensors[f"average.module.{weight}"], tensors[f"model.{weight}"])
    assert session(state, 5, ema_decay=0.0) == [5]
    assert not any(name.startswith("average.") for name in load_file(state))


def test_a_state_of_another_adapter_is_refused_in_one_sentence(tmp_path: Path):
    state = tmp_path / "state"
    session(state, 2)
    adapter, base = setup()
    other = MoAAdapter(replace(adapter.config, rank=2))
    with pytest.raises(RunMismatch, match=r"another kind of adapter .*: layers\.\S+ is .* weights differ") as refused:
        train(other, base, draw, config(3), state, ignore_log)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("cut", [0, 9], ids=["whole", "cut"])
def test_rows_of_steps_that_are_repeated_are_replaced(tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "log.jsonl"
    first = RunLog(path)
    for step in range(1, 6):
        first.step(step, {"loss": float(step), "other": float("nan")})
    content = path.read_text()
    path.write_text(content[: len(content) - cut])
    again = RunLog(path, digits=1)
    again.note(3, "learning_rate was 1 and is 2 from step 4 on.")
    again.step(4, {"loss": 0.44})
    rows = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert rows == read_log(path)
    assert [(row["step"], row.get("loss")) for row in rows] == [(1, 1.0), (2, 2.0), (3, 3.0), (3, None), (4, 0.4)]
    assert read_losses(path) == [1.0, 2.0, 3.0, 0.4]
    assert ("has 1 lines that are cut or damaged" in caplog.text) == bool(cut)


GOOD = b'{"step": 1, "loss": 2.0}\n'


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff\xfe{", GOOD + b'{"step": 2, "lo', b"[" * 100_000, GOOD + b'{"step": 2, "loss": "x"}\n'],
    ids=["missing", "empty", "no text", "cut", "deep", "no number"],
)  # fmt: skip
def test_a_missing_or_damaged_log_ends_no_run(tmp_path: Path, content: bytes | None):
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_bytes(content)
    known = [2.0] if content and GOOD in content else []
    assert read_losses(path) == known
    RunLog(path).step(2, {"loss": 5.0})
    assert read_losses(path) == [*known, 5.0]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_states_have_the_permissions_of_other_files(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        session(tmp_path / "state", 1)
        with replacing(tmp_path / "private") as part:
            part.write_text("x")
            part.chmod(0o600)
    finally:
        os.umask(before)
    for name in ("state", "private"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[str] = []
    fsync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), rename(a, b)))
    session(tmp_path / "state", 1)
    assert done == (["fsync", "rename", "fsync"] if os.name == "posix" else ["fsync", "rename"])
