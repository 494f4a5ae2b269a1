"""Training MoA Mini's base: its arithmetic is the host's, a killed run goes on to the same bits, a wider net starts close."""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.distributed as dist

IDS = torch.tensor([320, 786, 49406, 49407])


def recipe(name: str) -> ModuleType:
    return importlib.import_module(f"comfyui_moa.recipes.mini.{name}")


class FewPictures:
    """Random latents for `Training.step`, with all people in the upper half."""

    def draw(self, count: int) -> tuple[torch.Tensor, ...]:
        people = torch.zeros(count, 1, 16, 16)
        people[:, :, :8] = 1
        return torch.randn(count, 32, 16, 16), IDS[torch.randint(len(IDS), (count, 77))], people


@pytest.fixture
def alone(pack, tmp_path, monkeypatch):
    """A training of one process whose files go to an empty folder, in batches of two."""
    del pack
    base = recipe("model.base")
    monkeypatch.setattr(base, "WORK", tmp_path)
    monkeypatch.setattr(base, "BATCH", 2)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/processes", rank=0, world_size=1)
    yield base
    dist.destroy_process_group()


def test_the_schedule_rises_stays_and_falls_to_nothing(pack) -> None:
    del pack
    base, total = recipe("model.base"), 1_000_000
    rates = [
        base.rate(done, total) for done in (0, base.WARM_UP, total // 2, int(total * 0.8), int(total * 0.9), total)
    ]
    assert 0 < rates[0] < 0.01 * base.PEAK_RATE
    assert rates[1:4] == [base.PEAK_RATE] * 3
    assert rates[4] == pytest.approx(base.PEAK_RATE / 2)
    assert rates[5] == 0


def test_attention_without_a_mask_is_the_hosts(pack) -> None:
    """Only the order of sums differs, and a gradient reaches every weight."""
    del pack
    model, _ = recipe("model.unet").new_model(IDS)
    unet, noisy, time = model["unet"], torch.randn(2, 32, 16, 16), torch.tensor([3.0, 700.0])
    for parameter in unet.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    context = torch.randn(2, 77, 128)
    ours = recipe("model.diffusion").predict(unet, noisy, time, context)
    torch.testing.assert_close(ours, unet(noisy, time, context=context), rtol=0, atol=1e-4)
    ours.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in unet.parameters())


def test_errors_where_people_are_count_twice(pack, monkeypatch) -> None:
    """A net that predicts nothing errs by the velocity itself; noise 0 makes that known."""
    del pack
    diffusion = recipe("model.diffusion")
    monkeypatch.setattr(diffusion, "predict", lambda unet, noisy, time, context: torch.zeros_like(noisy))
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    model, _ = recipe("model.unet").new_model(IDS)
    alpha_bar, tokens = torch.zeros(1000), IDS[torch.zeros(1, 77, dtype=torch.long)]
    clean, people = torch.zeros(1, 32, 16, 16), torch.zeros(1, 1, 16, 16)
    clean[:, :, :8] = people[:, :, :8] = 1
    assert diffusion.velocity_loss(model, alpha_bar, clean, tokens, people) == pytest.approx(2 / 3)


@torch.inference_mode()
def test_the_shipped_autoencoder_computes_the_latents_of_the_recipe(pack) -> None:
    """To the rounding of its weights to half precision, which is within a hundredth of the latents' deviation."""
    del pack
    latents, picture = recipe("data.latents"), torch.rand(2, 3, 128, 128)
    shipped = recipe("model.unet").load_decoder().first_stage_model
    scale = importlib.import_module("comfyui_moa.nodes.host.model.mini").MiniLatent.scale_factor
    torch.testing.assert_close(shipped.taesd_encoder(picture) * scale, latents.encode(picture), rtol=0, atol=0.01)


def test_noise_levels_of_training_are_log_normal(pack) -> None:
    del pack
    diffusion, (_, alpha_bar) = recipe("model.diffusion"), recipe("model.unet").new_model(IDS)
    torch.manual_seed(0)
    drawn = alpha_bar[diffusion.random_times(alpha_bar, 20_000)]
    levels = ((1 - drawn) / drawn).sqrt().log()
    assert levels.median() == pytest.approx(diffusion.LEVEL_MEAN, abs=0.05)
    within = (levels - diffusion.LEVEL_MEAN).abs() < diffusion.LEVEL_DEVIATION
    assert within.float().mean() == pytest.approx(0.683, abs=0.015)


def test_muon_has_the_hidden_matrices_in_the_models_own_memory(alone) -> None:
    training = alone.Training("base", *recipe("model.unet").new_model(IDS))
    unet = training.model["unet"]
    hidden = {name for name, p in unet.named_parameters() if any(p is weight for weight in training.hidden)}
    assert "middle_block.0.in_layers.2.weight" in hidden and "input_blocks.1.1.proj_in.weight" in hidden
    assert not {"input_blocks.0.0.weight", "out.2.weight", "time_embed.0.bias"} & hidden
    before = unet.middle_block[0].in_layers[2].weight.detach().clone()
    training.step(FewPictures(), 100)
    training.step(FewPictures(), 100)  # the first step reaches the outputs alone, which begin at zero
    assert not torch.equal(unet.middle_block[0].in_layers[2].weight, before)
    for matrix, weight in zip(training.matrices, training.hidden, strict=True):
        assert matrix.data_ptr() == weight.data_ptr()


def test_the_contrast_is_least_where_two_drawings_are_alike(pack) -> None:
    del pack
    encoder = recipe("model.encoder")
    people = torch.eye(8)
    alike, mixed = (
        encoder.contrast(torch.cat([people, people])),
        encoder.contrast(torch.cat([people, people.roll(1, 0)])),
    )
    chance = encoder.contrast(torch.ones(16, 8))
    assert alike < 0.01 < chance < mixed
    assert chance == pytest.approx(np.log(15), abs=1e-4)


def test_recognition_is_chance_without_the_picture_and_better_with_the_skin(pack, monkeypatch) -> None:
    del pack
    encoder = recipe("model.encoder")
    monkeypatch.setitem(encoder.SPLITS, "validation", range(2500, 2570))  # of about 35 men and 35 women

    class Blind(torch.nn.Module):
        picture = 64

        def forward(self, pictures):
            return torch.randn(len(pictures), 32)

    class Skin(Blind):
        def forward(self, pictures):
            return pictures[:, :, 30:34, 30:34].mean((2, 3))

    torch.manual_seed(0)
    assert encoder.recognition(Blind()) == pytest.approx(0.05, abs=0.05)
    assert 0.1 < encoder.recognition(Skin()) < 0.9


def test_a_killed_training_goes_on_to_the_same_bits(alone) -> None:
    data = FewPictures()

    def start():
        torch.manual_seed(0)
        return alone.Training("base", *recipe("model.unet").new_model(IDS))

    through = start()
    for step in range(4):
        through.step(data, 100)
        if step == 1:
            through.session.save()
    resumed = start()
    assert resumed.seen == 4
    torch.rand(7)  # other draws of random numbers in between
    for _ in range(2):
        resumed.step(data, 100)
    for part in ("model", "average"):
        ours, theirs = (getattr(training, part).state_dict() for training in (through, resumed))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_state_loads_as_its_average_and_exports_at_its_width(alone, tmp_path, monkeypatch) -> None:
    """The same code loads any width; what the host loads is what the state holds, to half precision."""
    model = recipe("model.unet")
    training = alone.Training("base", *model.new_model(IDS, width=96))
    training.step(FewPictures(), 100)
    training.session.save()
    average, _ = model.load_model(tmp_path / "base.pt")
    assert model.steps_of(tmp_path / "base.pt") == 1
    assert torch.equal(average["unet"].out[2].bias, training.average["unet"].out[2].bias)

    patcher = importlib.import_module("comfyui_moa.nodes.host.files.mini_files").load_unet
    monkeypatch.setattr(model, "preview_factors", lambda: (torch.zeros(32, 3), torch.zeros(3)))
    model.export_model(average, tmp_path / "weights", 1)
    host = patcher(tmp_path / "weights" / "unet.safetensors").model
    assert host.model_config.unet_config["model_channels"] == 96
    assert host.diffusion_model.input_blocks[0][0].weight.shape == (96, 32, 3, 3)
    again, _ = model.load_model(tmp_path / "weights")
    assert torch.equal(
        again["unet"].input_blocks[0][0].weight, average["unet"].input_blocks[0][0].weight.half().float()
    )


def test_shared_weights_add_up(pack) -> None:
    """A layer that reads doubled channels gives what it gave, and no group of a norm is torn apart."""
    del pack
    widen = recipe("model.widen")
    weight, x = torch.randn(5, 64), torch.randn(7, 64)
    chosen = widen.channel_map(64)
    wider = widen.share(weight, chosen)
    torch.testing.assert_close(x[:, chosen] @ wider.T, x @ weight.T)
    assert np.array_equal((chosen // 2).numpy(), np.repeat(np.arange(32), 3))
    heads = widen.head_map(64)
    assert np.array_equal(heads.numpy(), np.r_[0:64, 0:32])


@torch.inference_mode()
def test_a_wider_net_begins_close_to_the_narrow_one(pack) -> None:
    """Of the shipped weights, on inputs that neither was made for: a fresh net would be as far away as their own size."""
    del pack
    model, widen = recipe("model.unet"), recipe("model.widen")
    torch.manual_seed(0)
    narrow, _ = model.load_model(recipe("data.faces").WEIGHTS)
    wide, _ = model.new_model(IDS, width=96)
    wide["unet"].load_state_dict({k: widen.widen(k, v) for k, v in narrow["unet"].state_dict().items()})
    noisy, time, context = torch.randn(2, 32, 16, 16), torch.tensor([100.0, 600.0]), torch.randn(2, 77, 128)
    before, after = (recipe("model.diffusion").predict(m["unet"], noisy, time, context) for m in (narrow, wide))
    assert (after - before).square().mean() < 0.3 * before.square().mean()


def test_a_low_rank_change_starts_as_nothing_and_is_the_product_of_its_factors(pack) -> None:
    del pack
    first, last = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 4)
    network = torch.nn.Sequential(first, torch.nn.Flatten(), last).requires_grad_(False)
    change, picture = recipe("model.low_rank").WeightChanges(network, ["0", "2"], 2), torch.randn(5, 3, 3, 3)
    torch.testing.assert_close(change.changed()(picture), network(picture))
    torch.nn.init.normal_(change.up["0"])
    up, down = change.factors()["0"]
    assert (up.shape, down.shape) == ((8, 2), (2, 3, 3, 3))
    weight = first.weight + (up @ down.flatten(1)).view(8, 3, 3, 3)
    wanted = last(torch.nn.functional.conv2d(picture, weight, first.bias).flatten(1))
    torch.testing.assert_close(change.changed()(picture), wanted)


def test_the_host_reads_the_control_net_as_it_is_trained(pack, tmp_path) -> None:
    """With a file of random factors, the host's own loader gives what the training computes, to the rounding of fp16."""
    from comfy.controlnet import load_controlnet
    from comfyui_moa.nodes.host.files.mini_files import load_unet

    del pack
    control, session = recipe("model.control"), recipe("model.session")
    unet = load_unet(control.WEIGHTS / "unet.safetensors").model
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"unet": unet.diffusion_model, "text": torch.nn.Identity()})
    training = control.ControlTraining(model, torch.ones(1000), None)
    for parameter in training.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    session.export(training.tensors(), tmp_path / "control.safetensors", 0)
    loaded = load_controlnet(str(tmp_path / "control.safetensors"))
    assert loaded is not None
    loaded.pre_run(unet, lambda percent: percent)
    noisy, hint, time = torch.randn(2, 32, 16, 16), torch.rand(2, 3, 128, 128), torch.tensor([3.0, 700.0])
    context = torch.randn(2, 77, 128)
    with torch.no_grad():
        wanted = training.change.changed()(noisy, hint, time, context)
    found = loaded.control_model(noisy, hint, time, context)
    for a, b in zip(wanted["output"] + wanted["middle"], found["output"] + found["middle"], strict=True):
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * float(a.std()))
