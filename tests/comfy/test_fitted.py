"""Routers fitted to an imported IP-Adapter, through the trainer and the nodes of the real host."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pictures
import pytest
import subjects
import torch
from comfyui_moa.moa_attention.formats.routers import expert_name, routers_of, save_routers
from comfyui_moa.moa_attention.training.base import Batch
from comfyui_moa.moa_attention.training.config import TrainConfig
from comfyui_moa.nodes.apply import ApplyMoA, choose_router
from comfyui_moa.nodes.host.files.folders import register_adapter_folders
from comfyui_moa.nodes.host.training.trainable import with_neutral_routers
from comfyui_moa.nodes.host.training.trainer import TrainingSession
from comfyui_moa.nodes.load import LoadMoAAdapter
from comfyui_moa.nodes.save import MoASaveAdapter
from comfyui_moa.recipes.adapter.settings import SettingsError
from safetensors.torch import save_file
from test_image_prompts import MAN, TOKENS, WOMAN, Imported, family, load_from_drop_down, prompt  # noqa: F401 (a fixture)

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = TrainConfig(steps=12, batch_size=2, learning_rate=0.03, precision="float32", ema_decay=0.0, only_routers=True,
                       router_weight=1e-2 / 16, router_foreground=1.0)  # fmt: skip


def draw(family: Imported, lot: Any) -> Batch:  # noqa: F811
    """Two subjects side by side, the left one in the upper half only."""
    count, (generator, *_) = len(lot.places), lot.generators
    slots, masks = torch.zeros(count, 77, dtype=torch.long), torch.zeros(count, 2, 16, 16)
    slots[:, MAN], slots[:, WOMAN] = 1, 2
    masks[:, 0, :8, :8], masks[:, 1, :, 8:] = 1, 1
    pooled = None if family.pooled is None else torch.randn(count, family.pooled, generator=generator)
    tokens = torch.randn(count, 2, TOKENS * family.context, generator=generator)
    return Batch(torch.randn(count, 4, 16, 16, generator=generator), torch.randn(count, 77, family.context, generator=generator),
                 slots, tokens, masks, pooled)  # fmt: skip


def fit(family: Imported, path: Path, state: Path) -> list[float]:  # noqa: F811
    """Routers for the imported adapter, saved; the router losses."""
    losses: list[float] = []
    expert = family.adapter.patcher.model
    adapter = with_neutral_routers(expert, "linear")
    before = {name: t.clone() for name, t in adapter.state_dict().items()}

    def log(_step: int, numbers: dict[str, float], _adapter: Any) -> None:
        losses.append(numbers["router"])

    trained = TrainingSession(family.model, adapter, SETTINGS, state, log).run(lambda lot: draw(family, lot))
    for name, tensor in trained.state_dict().items():
        assert ".router." in name or torch.equal(tensor, before[name]), name
    assert not expert.has_routers and not list(routers_of(expert)), "the loaded adapter is as it was"
    save_routers(trained, path, expert=expert_name(expert), licence="CC0-1.0", provenance={"data": "noise"})
    return losses


def test_fitted_to_a_file_and_used_with_it(family: Imported, base: Path, tmp_path: Path):  # noqa: F811
    register_adapter_folders()
    folder = base / "models" / "moa" / "routers"
    folder.mkdir(parents=True, exist_ok=True)
    losses = fit(family, folder / "mine.safetensors", tmp_path / "state.safetensors")
    assert losses[-1] < 0.97 * losses[0]
    source = base / "models" / "ipadapter" / "fitted.safetensors"
    source.parent.mkdir(parents=True, exist_ok=True)
    save_file({f"{part}.{k}": t for part, tensors in family.file.items() for k, t in tensors.items()}, source)
    adapter, about = LoadMoAAdapter.execute("ipadapter/fitted.safetensors", "mine.safetensors").result
    assert "router: fitted" in about and "routers, data: noise" in about
    assert LoadMoAAdapter.fingerprint_inputs("ipadapter/fitted.safetensors", "mine.safetensors") != (
        LoadMoAAdapter.fingerprint_inputs("ipadapter/fitted.safetensors")
    )
    made = Imported(family.name, family.model, family.context, family.pooled, adapter, family.file)
    model, trace = ApplyMoA.execute(family.model, adapter, 1.0).result
    alone = made.sample(model, prompt(made, {MAN: 11}), steps=3)
    maps = trace.calls[0].maps
    shape = next(reversed(maps.values())).shape
    distinct = {m.numpy().tobytes() for name, m in maps.items() if name.startswith("output") and m.shape == shape}
    assert len(distinct) > 1, "each layer decides for itself"
    assert subjects.difference(alone, made.sample(family.model, made.prompt(), steps=3)) > 1e-3
    forth = made.sample(model, prompt(made, {MAN: 11, WOMAN: 12}), steps=4)
    assert subjects.difference(forth, made.sample(model, prompt(made, {WOMAN: 12, MAN: 11}), steps=4)) < 1e-4
    assert subjects.difference(forth, made.sample(model, prompt(made, {MAN: 12, WOMAN: 11}), steps=4)) > 1e-3
    build, args = adapter.patcher.cached_patcher_init[:2]
    assert build(*args, disable_dynamic=True).model.has_routers
    with pytest.raises(ValueError, match="comes from a file of another format"):
        MoASaveAdapter.execute(adapter, "again", "fp16")


def configured(folder: Path, output: Path, start: str, more: str = "") -> None:
    """`python dev.py train` with only_routers, run in this process."""
    config = output.with_suffix(".toml")
    config.write_text(
        f"""
        output = "{output.as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{folder.as_posix()}", licence = "CC0-1.0", description = "boxes", side = 128 }}
        adapter.start = "{start}"
        train = {{ steps = 3, batch_size = 2, learning_rate = 1e-2, precision = "float32", only_routers = true }}
        validation = {{ every = 3, prompts = ["a man on a beach"], steps = 2 }}
        {more}
        """
    )
    importlib.import_module("comfyui_moa.recipes.adapter.train").main([str(config)])


def test_the_command_line_fits_routers_to_an_adapter_file(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str]
):
    register_adapter_folders()
    folder = pictures.kohya(tmp_path / "boxes")
    configured(folder, tmp_path / "out", (ROOT / "weights" / "mini" / "adapter.safetensors").as_posix())
    assert "models/moa/routers" in capsys.readouterr().out
    routers = base / "models" / "moa" / "routers"
    routers.mkdir(parents=True, exist_ok=True)
    (tmp_path / "out" / "routers.safetensors").rename(routers / "mini.safetensors")
    adapter, about = LoadMoAAdapter.execute("bundled/mini/adapter.safetensors", "mini.safetensors").result
    assert "routers, data: boxes" in about and choose_router("automatic", adapter) is None
    plain, _ = LoadMoAAdapter.execute("bundled/mini/adapter.safetensors").result
    one, other = (next(routers_of(a.patcher.model)).state_dict() for a in (adapter, plain))
    assert any(not torch.equal(one[k].float(), other[k].float()) for k in one)


def test_routers_cannot_be_fitted_to_nothing_or_through_what_is_not_there(tmp_path: Path, base: Path):
    folder = pictures.kohya(tmp_path / "boxes")
    for start, message in (("nowhere.safetensors", "fits routers to adapter.start, but there is no file 'nowhere"),):
        with pytest.raises(SystemExit, match=message):
            configured(folder, tmp_path / "out", start)
    for kind, message in (("base", "Set models.clip_vision"), ("faceid", "needs face embeddings")):
        load_from_drop_down(kind, base)
        with pytest.raises(SystemExit, match=message):
            configured(folder, tmp_path / "out", (base / "models" / "ipadapter" / f"{kind}.safetensors").as_posix())
    assert issubclass(SettingsError, ValueError)
