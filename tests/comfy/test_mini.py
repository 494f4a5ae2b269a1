"""MoA Mini's recipe and loader against the host: what is trained is what the host computes with the shipped files."""

from __future__ import annotations

import importlib
from types import ModuleType

import comfy.ops
import pytest
import torch


def module(name: str) -> ModuleType:
    return importlib.import_module(f"comfyui_moa.{name}")


@pytest.fixture(scope="module")
def shipped(pack):
    """MODEL, CLIP and VAE of `weights/mini`."""
    del pack
    return module("nodes.mini").load_mini(module("recipes.mini.faces").WEIGHTS)


@pytest.fixture
def small(pack, tmp_path):
    """A fresh model as the recipe builds it, its schedule, and the host's objects loaded from its export."""
    del pack
    base, text, vae = (module(f"recipes.mini.{name}") for name in ("base", "text", "session"))
    torch.manual_seed(0)
    model, alpha_bar = base.new_model(torch.tensor([320, 786, 49406, 49407]))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)  # outputs start at zero, which would hide mistakes
    model.eval().half().float()
    header = {"latent_rgb_factors": "[]", "latent_rgb_factors_bias": "[]"}
    vae.export(model["unet"].state_dict(), tmp_path / "unet.safetensors", header)
    vae.export(text.text_weights(model["text"]), tmp_path / "clip.safetensors", {})
    mini = module("nodes.mini")
    return (
        model,
        alpha_bar,
        mini._load_model(tmp_path / "unet.safetensors"),
        mini._load_clip(tmp_path / "clip.safetensors"),
    )


@torch.inference_mode()
def test_text_encoder_is_trained_as_the_host_runs_it(small) -> None:
    model, _, _, clip = small
    text = module("recipes.mini.text")
    ours = text.encode_text(model["text"], text.tokenise(["a man a man"]))
    host = clip.encode_from_tokens(clip.tokenize("a man a man"))
    torch.testing.assert_close(ours, host, rtol=0, atol=1e-4)


@torch.inference_mode()
def test_words_outside_the_captions_share_one_embedding(small) -> None:
    clip = small[3]
    one, other = (clip.encode_from_tokens(clip.tokenize(word)) for word in ("a zebra", "a piano"))
    torch.testing.assert_close(one, other)
    assert not torch.equal(one, clip.encode_from_tokens(clip.tokenize("a man")))


@torch.inference_mode()
def test_velocity_means_what_the_host_takes_it_for(small) -> None:
    model, alpha_bar, patcher, _ = small
    x, context = torch.randn(1, 32, 16, 16), torch.randn(1, 77, 128)
    sigma = patcher.model.model_sampling.sigmas[500]
    signal, noise_share = alpha_bar[500].sqrt(), (1 - alpha_bar[500]).sqrt()
    noisy = x * sigma * signal
    velocity = model["unet"](noisy, torch.tensor([500.0]), context=context)
    host = patcher.model.apply_model(x * sigma, sigma[None], c_crossattn=context)
    torch.testing.assert_close(host, signal * noisy - noise_share * velocity, rtol=0, atol=1e-4)


def test_a_trained_encoder_is_not_needed(pack, monkeypatch) -> None:
    """The host's tiny encoder computes the linear latents exactly, whatever the projection is."""
    del pack
    latents, start, mini = (module(n) for n in ("recipes.mini.latents", "recipes.mini.head_start", "nodes.mini"))
    basis = torch.linalg.qr(torch.randn(192, latents.CHANNELS))[0]
    projection = {"basis": basis, "mean": torch.rand(192), "gain": torch.rand(latents.CHANNELS) + 0.5}
    for user in (latents, start):
        monkeypatch.setattr(user, "projection", lambda: projection)
    model = mini.build_autoencoder()
    pictures = torch.rand(2, 3, 64, 32)
    with torch.inference_mode():
        start.set_encoder(model.taesd_encoder)
        ours = model.taesd_encoder(pictures) * mini.MiniLatent.scale_factor
    torch.testing.assert_close(ours, latents.encode(pictures), rtol=0, atol=1e-4)


def test_operations_of_training_have_no_cast(pack) -> None:
    """Gradients must reach the very weights that are saved."""
    del pack
    model, _ = module("recipes.mini.base").new_model(torch.tensor([320, 49407]))
    assert all(p.requires_grad and p.is_leaf for p in model.parameters())
    assert isinstance(model["unet"].out[-1], comfy.ops.disable_weight_init.Conv2d)


@torch.inference_mode()
def test_shipped_model_samples_through_the_host(shipped) -> None:
    import comfy.sample

    patcher, clip, vae = shipped
    positive, negative = (clip.encode_from_tokens(clip.tokenize(text)) for text in ("a man on a beach", ""))
    empty = comfy.sample.fix_empty_latent_channels(patcher, torch.zeros(1, 4, 16, 16))
    conds = [[positive, {}]], [[negative, {}]]
    drawn = comfy.sample.sample(patcher, torch.randn(1, 32, 16, 16), 4, 3.0, "euler", "normal", *conds, empty, seed=1)
    picture = vae.decode(drawn)
    assert picture.shape == (1, 128, 128, 3)
    assert picture.isfinite().all()
    assert picture.std() > 0.05


@torch.inference_mode()
def test_shipped_autoencoder_keeps_drawings(shipped) -> None:
    """A drawn scene comes back within a few grey levels."""
    import numpy as np

    vae = shipped[2]
    scene = module("recipes.mini.scenes").beach(np.random.default_rng(0)).resize((128, 128))
    picture = torch.from_numpy(np.array(scene)).float()[None] / 255
    assert (vae.decode(vae.encode(picture)) - picture).abs().mean() < 0.05
