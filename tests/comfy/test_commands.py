"""The training commands before they load anything: what is wrong is named in one sentence, without the host."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import subjects
from comfyui_moa.moa_attention.formats.adapter import save_adapter
from comfyui_moa.nodes.host.files.mini_files import load_mini

ROOT = Path(__file__).resolve().parents[2]


def write(path: Path, **settings: Any) -> Path:
    """A config file; `table__field` is a field of a table."""
    lines = {"output": (path.parent / "out").as_posix(), "models__checkpoint": "moa-mini", "data__licence": "CC0-1.0"}
    lines |= {"data__folder": path.parent.as_posix(), "train__steps": 2}
    lines |= {"evaluation__people": "people", **settings}
    path.write_text("\n".join(f"{name.replace('__', '.')} = {json.dumps(value)}" for name, value in lines.items()))
    return path


def refusal(name: str, *arguments: str) -> str:
    """The sentence with which a command ends, in this process."""
    with pytest.raises(SystemExit) as ended:
        importlib.import_module("comfyui_moa.recipes.adapter.commands").read_request(name, list(arguments))
    assert isinstance(ended.value.code, str)
    return ended.value.code


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train__steps", 0, "train: steps is 0 and must be in the range 1 to 10000000"),
        ("train__learning_rate", -1e-4, "learning_rate is -0.0001 and must be in the range 1e-09 to 1"),
        ("train__ema_decay", 1.5, "ema_decay is 1.5 and must be in the range 0 to 0.999999"),
        ("train__batch_size", 0, "batch_size is 0 and must be in the range 1 to 65536"),
        ("train__save_every", 0, "save_every is 0 and must be"),
        ("train__noisiness", 0, "noisiness is 0 and must be"),
        ("adapter__rank", -3, "adapter: rank is -3 and must be in the range 0 to 1024"),
        ("data__side", 0, "data: side is 0 and must be in the range 64 to 2048, a multiple of 64"),
        ("data__side", 100, "side is 100 and must be"),
        ("validation__steps", 0, "validation: steps is 0 and must be"),
        ("evaluation__guidance", -1, "evaluation: guidance is -1 and must be"),
        ("train__micro_batch", 3, "batch_size 128 cannot be divided among 1 processes in micro-batches of 3"),
        ("models__checkpoint", "no.safetensors", "models.checkpoint: there is no file .*no.safetensors"),
        ("models__vae", "no.safetensors", "models.vae: there is no file"),
        ("models__clip_vision", "no.safetensors", "models.clip_vision: there is no file"),
        ("models__prediction", "v", "models.prediction: moa-mini is recognised"),
        ("models__zero_snr", True, "models.zero_snr has an effect only with models.prediction"),
        ("models__weights", "fp8", "models.weights: moa-mini is too small to need 8 bits"),
        ("adapter__start", "no.safetensors", "adapter.start: there is no file"),
        ("train__only_routers", True, "only_routers fits routers to adapter.start, but there is no file"),
        ("data__folder", "/no/such", "data.folder: there is no folder of pictures .*such"),
        ("validation__prompts", ["a quiet beach"], "validation.prompts: 'a quiet beach' has no word that can be a sub"),
        ("validation__references", ["no.jpg"], "validation.references: missing file: no.jpg"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_loaded(tmp_path: Path, field: str, value: Any, message: str):
    refused = refusal("train", str(write(tmp_path / "c.toml", **{field: value})))
    assert re.search(message, refused), refused
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["train", "prepare"])
def test_an_output_that_cannot_be_a_folder_is_refused(tmp_path: Path, name: str):
    config = write(tmp_path / "c.toml")
    for output, message in (
        (config, "c.toml is a file"),
        (config / "deeper", "c.toml is a file"),
        ("", "output is empty"),
    ):
        assert message in refusal(name, str(config), "--output", str(output))


def test_a_folder_is_no_config_file(tmp_path: Path):
    assert "cannot be read" in refusal("train", str(tmp_path))


def test_an_optimiser_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    optimisers = importlib.import_module("comfyui_moa.moa_attention.training.optimisation.optimisers")
    monkeypatch.setattr(optimisers, "installed", lambda _: False)
    refused = refusal("train", str(write(tmp_path / "c.toml", train__optimiser="adamw-8bit", tracker="none")))
    assert "'adamw-8bit' needs the package bitsandbytes, which is not installed" in refused


def test_prepare_and_plan_check_what_they_need(tmp_path: Path):
    config = str(write(tmp_path / "c.toml", data__folder="/no/such", models__checkpoint="no.safetensors"))
    assert "prepare: data.folder: there is no folder" in refusal("prepare", config)
    assert "plan: models.checkpoint: there is no file" in refusal("plan", config)
    config = str(write(tmp_path / "c.toml", prepare__captioner="/no/such"))
    assert "prepare.captioner: " in refusal("prepare", config)


def test_a_config_file_with_a_byte_order_mark_is_read(tmp_path: Path):
    path = write(tmp_path / "c.toml")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert importlib.import_module("comfyui_moa.recipes.adapter.settings").read_settings(path).train.steps == 2
    path.write_bytes("# é".encode("latin-1"))
    assert "is not UTF-8 text" in refusal("train", str(path))


def changed(path: Path, *arguments: str) -> Any:
    """The settings of `prepare`, which checks least, with these options."""
    commands = importlib.import_module("comfyui_moa.recipes.adapter.commands")
    return commands.read_request("prepare", [str(path), *arguments]).settings


def test_every_setting_is_an_option_and_its_range_holds(tmp_path: Path):
    path = write(tmp_path / "c.toml", train__learning_rate=1e-3)
    options = ["--learning_rate", "1e-4", "--train.steps", "10", "--checkpointing", "--output", str(tmp_path / "other")]
    found = changed(path, *options, "--validation.prompts", "a man, smiling", "a woman")
    assert (found.train.learning_rate, found.train.steps, found.train.checkpointing) == (1e-4, 10, True)
    assert found.validation.prompts == ("a man, smiling", "a woman") and found.output == tmp_path / "other"
    assert found.train.batch_size == 128 and changed(path, "--checkpointing", "false").train.checkpointing is False
    for argument in ("--rank=-3", "--adapter.rank=-3"):
        refused = refusal("train", str(path), argument)
        assert "with the options of the command line has mistakes" in refused and "rank is -3 and must be in" in refused
    assert "train.learning_rate: Input should be a valid number" in refusal(
        "train", str(path), "--learning_rate", "fast"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--steps", "several tables have --steps. Use one of --train.steps, --validation.steps, --evaluation.steps."),
        ("--learning-rate", "there is no option --learning-rate. Perhaps you mean --learning_rate"),
        ("--zzz", "there is no option --zzz. train --help lists all options."),
    ],
)
def test_an_unknown_option_is_refused_with_those_that_it_may_mean(
    tmp_path: Path, option: str, message: str, capsys: pytest.CaptureFixture[str]
):
    commands = importlib.import_module("comfyui_moa.recipes.adapter.commands")
    with pytest.raises(SystemExit):
        commands.read_request("train", [str(write(tmp_path / "c.toml")), option, "10"])
    assert message in capsys.readouterr().err


def test_the_help_of_each_command_lists_all_settings():
    overrides = importlib.import_module("comfyui_moa.recipes.adapter.overrides")
    for name in ("train", "plan", "prepare", "eval"):
        text = importlib.import_module("comfyui_moa.recipes.adapter.commands").parser(name).format_help()
        for table in overrides.option_tables():
            for entry in overrides.table_fields(table):
                assert all(f"{option} " in text for option in overrides.option_names(table, entry.name)), entry.name


def test_a_start_of_another_rank_is_refused(tmp_path: Path):
    model, _, _ = load_mini(ROOT / "weights" / "mini")
    made = subjects.make_adapter(model, model.model.model_config.unet_config["context_dim"], rank=4)
    path = tmp_path / "start.safetensors"
    save_adapter(made.patcher.model, path, licence="none", provenance={})
    refused = refusal("train", str(write(tmp_path / "c.toml", adapter__start=path.as_posix(), adapter__rank=8)))
    assert "It has rank 4, the settings 8: set rank to 4, or train without 'start'" in refused


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What a user types, where no ComfyUI can be found: an import of the host would fail."""
    nowhere = {**os.environ, "COMFYUI_PATH": "/no/such/place"}
    program: Sequence[str] = [sys.executable, str(ROOT / "recipes" / "run.py"), *arguments]
    return subprocess.run(program, env=nowhere, capture_output=True, text=True)


def test_help_and_checks_come_without_the_host(tmp_path: Path):
    help_text = command("adapter.plan", "--help")
    assert help_text.returncode == 0 and "The memory and time of a run" in help_text.stdout
    wrong = command("adapter.prepare", str(write(tmp_path / "c.toml", data__folder="/no/such")))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "prepare: data.folder: there is no folder of pictures /no/such.\n"
    adapter = (ROOT / "weights" / "mini" / "adapter.safetensors").as_posix()
    config = write(tmp_path / "e.toml", evaluation__people="/no/such", evaluation__adapter=adapter)
    wrong = command("adapter.evaluate", str(config))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("eval: evaluation.people: there is no folder /no/such.")


@pytest.mark.skipif(os.name != "posix", reason="Windows has no signals between processes")
def test_a_signal_to_dev_py_reaches_the_program_and_its_exit_code_comes_back():
    program = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); "
        "print('ready', flush=True); time.sleep(60)"
    )
    start = f"import sys; from devtools import venv; sys.exit(venv.run('-c', {program!r}))"
    process = subprocess.Popen([sys.executable, "-c", start], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(30) == 143
    process.stdout.close()
