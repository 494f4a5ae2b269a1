"""Training through the real host: two layouts and two interfaces give one run; checkpointing; a real server."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import comfy.supported_models
import host
import pictures
import pytest
import subjects
import torch
from accelerate.utils import DistributedType
from comfyui_moa.moa_attention.formats.adapter import read_header
from comfyui_moa.moa_attention.training.base import Batch
from comfyui_moa.moa_attention.training.config import TrainConfig
from comfyui_moa.moa_attention.training.lots import lots
from comfyui_moa.moa_attention.training.objective import Objective
from comfyui_moa.moa_attention.training.workers import Alone
from comfyui_moa.nodes.host.files.mini_files import load_mini
from comfyui_moa.nodes.host.model.layers import fresh_adapter
from comfyui_moa.nodes.host.model.patch import call_with_subjects, host_patcher
from comfyui_moa.nodes.host.training.encoders import HostEncoders
from comfyui_moa.nodes.host.training.trainer import HostBase, training_mode
from comfyui_moa.nodes.train import MoATrain
from comfyui_moa.recipes.adapter.workers import check_workers

from devtools.server import Server, ServerError

ROOT = Path(__file__).resolve().parents[2]
STEPS, BATCH, RATE, RANK = 3, 2, 1e-3, 4


def command_line(folder: Path, output: Path) -> list[float]:
    """Losses of `python dev.py train`, run in this process."""
    config = output.with_suffix(".toml")
    config.write_text(
        f"""
        output = "{output.as_posix()}"
        models.checkpoint = "moa-mini"
        data = {{ folder = "{folder.as_posix()}", licence = "CC0-1.0", description = "boxes", side = 128 }}
        adapter.rank = {RANK}
        train = {{ steps = {STEPS}, batch_size = {BATCH}, learning_rate = {RATE}, precision = "float32" }}
        validation = {{ every = {STEPS}, prompts = ["a man on a beach"], steps = 2 }}
        """
    )
    importlib.import_module("comfyui_moa.recipes.adapter.train").main([str(config)])
    return [json.loads(line)["loss"] for line in (output / "log.jsonl").read_text().splitlines()]


def node(folder: str) -> tuple[Any, list[float], str]:
    """What MoATrain gives, executed as the host executes nodes."""
    with torch.inference_mode():
        model, clip, vae = load_mini(ROOT / "weights" / "mini")
        made = MoATrain.execute(
            model, clip, vae, folder, "test_run", STEPS, BATCH, 0, RATE, RANK, 128, False, 0, "CC0-1.0", 2, "a man"
        )
    adapter, losses, report = made.result
    return adapter, losses["loss"], report


def test_layouts_and_interfaces_give_the_same_run(tmp_path: Path, base: Path):
    pictures.kohya(base / "input" / "boxes")
    beside = command_line(base / "input" / "boxes", tmp_path / "one")
    assert len(beside) == STEPS
    assert command_line(pictures.fastcomposer(tmp_path / "ffhq"), tmp_path / "two") == pytest.approx(beside, abs=1e-5)
    adapter, losses, report = node("boxes")
    assert losses == pytest.approx(beside, abs=1e-5)
    assert report.startswith("6 pictures to train on, 0 left out")
    assert adapter.provenance["config"]["steps"] == STEPS
    header = read_header(tmp_path / "one" / "adapter.safetensors")
    assert (header.config.rank, header.config.base, header.licence) == (RANK, "moa-mini", "CC0-1.0")
    assert header.provenance["pictures"] == 6 and header.provenance["data"] == "boxes"
    assert (tmp_path / "one" / "sheets" / f"{STEPS:07}.png").stat().st_size > 1000


def batch(channels: int, width: int, pooled: int | None) -> Batch:
    generator = torch.Generator().manual_seed(1)
    slots, masks = torch.zeros(1, 77, dtype=torch.long), torch.zeros(1, 1, 16, 16)
    slots[0, 4], masks[0, 0, 4:12, 4:12] = 1, 1
    return Batch(
        torch.randn(1, channels, 16, 16, generator=generator),
        torch.randn(1, 77, width, generator=generator),
        slots,
        torch.randn(1, 1, subjects.FEATURE, generator=generator),
        masks,
        None if pooled is None else torch.randn(1, pooled, generator=generator),
    )


def step(model: Any, pooled: int | None, checkpointing: bool, rank: int) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of one batch and its gradients."""
    config = TrainConfig(steps=1, batch_size=1, precision="float32", checkpointing=checkpointing)
    torch.manual_seed(0)
    adapter = fresh_adapter(model, "clip", subjects.FEATURE, rank=rank)
    with training_mode(model, config):
        base = HostBase(model, host_patcher(adapter))
        (lot,) = lots(0, config, Alone())
        width = adapter.config.text_width
        loss, _ = Objective(adapter, base, config)(batch(4, width, pooled), lot.generators)
        loss.backward()
    return float(loss.detach()), {name: p.grad for name, p in adapter.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
@pytest.mark.parametrize("rank", [0, 4])
def test_checkpointing_changes_no_gradient(family: str, rank: int):
    model, pooled = (host.sd15(), None) if family == "sd15" else (host.sdxl(), host.SDXL_G)
    plain, twice = (step(model, pooled, checkpointing, rank) for checkpointing in (False, True))
    assert plain[0] == pytest.approx(twice[0], rel=1e-5)
    assert plain[1].keys() == twice[1].keys()
    moved = [name for name, gradient in plain[1].items() if gradient.abs().sum() > 0]
    assert any("to_v" in name for name in moved) and any("router" in name for name in moved)
    for name in moved:
        torch.testing.assert_close(twice[1][name], plain[1][name], rtol=1e-3, atol=1e-6)
    assert "forward" not in vars(next(iter(model.model.diffusion_model.input_blocks[1])))


@pytest.mark.parametrize("rank", [0, 4])
def test_a_base_in_8_bits_trains_as_its_rounded_weights_do(rank: int):
    """As models.weights = "fp8" loads it: the host converts every layer when it is used."""
    family, layout = comfy.supported_models.SD15, host.sd15_layout(32, host.SD15_CONTEXT)
    stored = host.patcher(family, layout, dtype=torch.float8_e4m3fn, compute=torch.float32)
    rounded = host.patcher(family, layout)
    for weight in rounded.model.diffusion_model.parameters():
        weight.data = weight.data.to(torch.float8_e4m3fn).float()
    ours, theirs = (step(model, None, True, rank) for model in (stored, rounded))
    assert {w.dtype for w in stored.model.diffusion_model.parameters()} == {torch.float8_e4m3fn}
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
    assert ours[1].keys() == theirs[1].keys() and any(g.abs().sum() > 0 for g in theirs[1].values())
    for name, gradient in theirs[1].items():
        torch.testing.assert_close(ours[1][name], gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_prior_consistency_compares_with_the_unpatched_base(family: str):
    model, pooled = (host.sd15(), None) if family == "sd15" else (host.sdxl(), host.SDXL_G)
    adapter = subjects.make_adapter(model, host.SD15_CONTEXT if family == "sd15" else host.SDXL_CONTEXT).patcher
    config = TrainConfig(steps=1, batch_size=1, precision="float32", consistency_weight=1.0, checkpointing=True)
    with training_mode(model, config):
        base, given = HostBase(model, adapter), batch(4, adapter.model.config.text_width, pooled)
        noisy, sigma = torch.randn(1, 4, 16, 16), torch.tensor([2.0])
        alone = base.denoise_alone(noisy, sigma, given)
        untouched = call_with_subjects(model.clone(), noisy, sigma, given.context, given.pooled, {})
        (lot,) = lots(0, config, Alone())
        adapter.model.requires_grad_(True)
        loss, parts = Objective(adapter.model, base, config)(given, lot.generators)
        loss.backward()
    assert torch.equal(alone, untouched) and not alone.requires_grad
    assert float(parts["consistency"]) > 1e-3
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.model.parameters())


def test_encodings_for_the_cache_require_no_gradient():
    """Though the host's weights require one: otherwise every picture keeps its graph until its shard is written."""
    vision = host.clip_vision(32, subjects.FEATURE)
    encoders = HostEncoders(*load_mini(ROOT / "weights" / "mini"), vision)
    for module in (encoders.vae.first_stage_model, encoders.clip.cond_stage_model, vision.model):
        module.requires_grad_(True)
    latents = encoders.latents(torch.rand(1, 3, 128, 128))
    text = encoders.text("a man on a beach", [5])
    features = encoders.features(torch.rand(2, 3, 224, 224))
    assert not any(t.requires_grad or t.grad_fn for t in (latents, text.context, text.pooled, features))
    assert latents.abs().sum() > 0 and text.context.abs().sum() > 0 and features.shape == (2, subjects.FEATURE)


def prompt(steps: int, name: str, rank: int = 4) -> dict[str, Any]:
    settings = {
        "folder": "boxes", "name": name, "steps": steps, "batch_size": 2, "micro_batch": 0, "learning_rate": 1e-3,
        "rank": rank, "side": 128, "checkpointing": False, "seed": 0, "licence": "CC0-1.0", "clip_vision_name": "none",
        "preview_every": 4, "preview_prompts": "a man on a beach",
    }  # fmt: skip
    return {
        "1": {"class_type": "MoALoadMini", "inputs": {"model": "mini"}},
        "2": {"class_type": "MoATrain", "inputs": {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], **settings}},
        "3": {
            "class_type": "MoASaveAdapter",
            "inputs": {"adapter": ["2", 0], "filename_prefix": "trained/boxes", "precision": "fp16"},
        },
        "4": {"class_type": "LossGraphNode", "inputs": {"loss": ["2", 1], "filename_prefix": "loss"}},
    }


def test_a_cancelled_run_on_the_server_goes_on_and_can_be_used(server: Server):
    pictures.kohya(server.base / "input" / "boxes")
    steps_done: list[int] = []

    def cancel(_node: str, value: int, of: int) -> None:
        if of == 500:
            steps_done.append(value)
            server.interrupt()

    with pytest.raises(ServerError, match="cancelled"):
        server.queue(prompt(500, "cancelled"), progress=cancel)
    state = server.base / "output" / "moa_training" / "cancelled" / "state.safetensors"
    assert state.is_file() and 0 < steps_done[0] < 500
    steps = steps_done[-1] + 3
    history = server.queue(prompt(steps, "cancelled"))
    assert history["outputs"]["4"]["images"]
    rows = [json.loads(line) for line in (state.parent / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, steps + 1))
    notes = [row["note"] for row in rows if "note" in row]
    assert notes == [f"steps was 500 and is {steps} from step {steps - 2} on."]
    with pytest.raises(ServerError, match="rank 4, now 8. Use the earlier values, or start another run"):
        server.queue(prompt(steps + 1, "cancelled", rank=8))
    saved = list((server.base / "models" / "moa" / "trained").glob("boxes_*.safetensors"))
    assert len(saved) == 1
    assert read_header(saved[0]).provenance["data"] == "boxes"
    used = {
        "1": {"class_type": "LoadMoAAdapter", "inputs": {"adapter_file": f"trained/{saved[0].name}"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 1]}},
    }
    assert "licence: CC0-1.0" in json.dumps(server.queue(used)["outputs"])


def test_a_queue_without_changes_trains_nothing_and_one_with_a_changed_caption_runs_again(server: Server):
    folder = pictures.kohya(server.base / "input" / "edited")
    again = prompt(2, "edited")
    again["2"]["inputs"]["folder"] = "edited"
    server.queue(again)
    saved = server.base / "models" / "moa" / "trained"
    before = len(list(saved.glob("*")))
    server.queue(again)
    assert len(list(saved.glob("*"))) == before
    (folder / "00000000.txt").write_text("a man in the wind")
    with pytest.raises(ServerError, match="the pictures have changed since. Raise 'steps'"):
        server.queue(again)


def test_a_preview_without_a_subject_is_refused_before_training(server: Server):
    pictures.kohya(server.base / "input" / "previewed", count=2)
    wrong = prompt(1, "wordless")
    wrong["2"]["inputs"]["folder"] = "previewed"
    wrong["2"]["inputs"]["preview_prompts"] = "a quiet beach"
    with pytest.raises(ServerError, match="'a quiet beach' of the validation sheet has no word that can be a subject"):
        server.queue(wrong)


def test_a_run_with_nothing_to_train_on_is_refused_with_the_reasons(server: Server):
    folder = server.base / "input" / "bare"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"")
    broken = prompt(1, "bare")
    broken["2"]["inputs"]["folder"] = "bare"
    with pytest.raises(ServerError, match="(?s)Nothing to train on.*no caption: a.txt does not exist"):
        server.queue(broken)


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_a_launch_that_would_cut_the_adapter_into_pieces_is_refused(kind: DistributedType):
    check_workers(DistributedType.MULTI_GPU, 1)
    with pytest.raises(ValueError, match=rf"launched for {kind.value}.*--multi_gpu"):
        check_workers(kind, 1)


def test_processes_that_would_train_apart_are_refused(monkeypatch: pytest.MonkeyPatch):
    """As a launcher starts them on a CPU without ACCELERATE_USE_CPU: Accelerate takes each for the only one."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_workers(DistributedType.MULTI_CPU, 2)
    with pytest.raises(ValueError, match="started 2 processes, but Accelerate knows of 1.*ACCELERATE_USE_CPU"):
        check_workers(DistributedType.NO, 1)
