"""MoA Mini's recipe and loader against the host: what is trained is what the host computes with the shipped files."""

from __future__ import annotations

import importlib
from types import ModuleType

import comfy.ops
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def module(name: str) -> ModuleType:
    return importlib.import_module(f"comfyui_moa.{name}")


@pytest.fixture(scope="module")
def shipped(pack):
    """MODEL, CLIP and VAE of `weights/mini`."""
    del pack
    return module("nodes.host.files.mini_files").load_mini(module("recipes.mini.data.faces").WEIGHTS)


@pytest.fixture
def small(pack, tmp_path):
    """A fresh model as the recipe builds it, its schedule, and the host's objects loaded from its export."""
    del pack
    recipe, text, vae = (module(f"recipes.mini.model.{name}") for name in ("unet", "text", "session"))
    torch.manual_seed(0)
    model, alpha_bar = recipe.new_model(torch.tensor([320, 786, 49406, 49407]))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)  # outputs start at zero, which would hide mistakes
    model.eval().half().float()
    header = {"latent_rgb_factors": "[]", "latent_rgb_factors_bias": "[]"}
    vae.export(model["unet"].state_dict(), tmp_path / "unet.safetensors", 0, **header)
    vae.export(text.text_weights(model["text"]), tmp_path / "clip.safetensors", 0)
    mini = module("nodes.host.files.mini_files")
    return (
        model,
        alpha_bar,
        mini.load_unet(tmp_path / "unet.safetensors"),
        mini.load_text_encoder(tmp_path / "clip.safetensors"),
    )


@torch.inference_mode()
def test_text_encoder_is_trained_as_the_host_runs_it(small) -> None:
    model, _, _, clip = small
    text = module("recipes.mini.model.text")
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
def test_velocity_has_the_hosts_meaning(small) -> None:
    model, alpha_bar, patcher, _ = small
    x, context = torch.randn(1, 32, 16, 16), torch.randn(1, 77, 128)
    sigma = patcher.model.model_sampling.sigmas[500]
    signal, noise_share = alpha_bar[500].sqrt(), (1 - alpha_bar[500]).sqrt()
    noisy = x * sigma * signal
    velocity = model["unet"](noisy, torch.tensor([500.0]), context=context)
    host = patcher.model.apply_model(x * sigma, sigma[None], c_crossattn=context)
    torch.testing.assert_close(host, signal * noisy - noise_share * velocity, rtol=0, atol=1e-4)


def test_at_the_noisiest_timestep_not_even_the_mean_colour_is_seen(small) -> None:
    """A model that sees it in training takes the noise of sampling for a picture's layout."""
    _, alpha_bar, patcher, _ = small
    noisiest = patcher.model.model_sampling.sigma_max
    torch.testing.assert_close(noisiest, ((1 - alpha_bar[-1]) / alpha_bar[-1]).sqrt())
    assert noisiest == pytest.approx(100, rel=0.05)


def test_a_trained_encoder_is_not_needed(pack, monkeypatch) -> None:
    """The host's tiny encoder computes the linear latents exactly for any projection."""
    del pack
    latents, start, mini = (
        module(n) for n in ("recipes.mini.data.latents", "recipes.mini.model.head_start", "nodes.host.model.mini")
    )
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
    model, _ = module("recipes.mini.model.unet").new_model(torch.tensor([320, 49407]))
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


@pytest.mark.parametrize("part", ["unet", "clip", "vae"])
def test_files_that_are_not_the_models_are_refused_by_name(pack, tmp_path, part: str) -> None:
    """A pointer of Git LFS, a cut file, one tensor less, one of another shape, and the file of another part."""
    del pack
    mini, shipped = module("nodes.host.files.mini_files"), module("recipes.mini.data.faces").WEIGHTS
    load = {"unet": mini.load_unet, "clip": mini.load_text_encoder, "vae": mini.load_autoencoder}[part]
    content, path = shipped / f"{part}.safetensors", tmp_path / f"{part}.safetensors"
    with safe_open(content, framework="pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    last = max(tensors)

    def refused(message: str) -> None:
        with pytest.raises(module("moa_attention.formats.errors").StoredFileError, match=message) as caught:
            load(path)
        assert str(caught.value).startswith(f"'{path}' ")

    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused("is a Git LFS pointer")
    path.write_bytes(content.read_bytes()[:5000])
    refused("cannot be read as safetensors")
    save_file({name: t for name, t in tensors.items() if name != last}, path, header)
    refused("it lacks 'token_ids'" if part == "clip" else f"missing: {last}")
    save_file({**tensors, last: torch.zeros(3)}, path, header)
    refused("of another shape: ")
    path.write_bytes((shipped / "adapter.safetensors").read_bytes())
    refused(
        "is incomplete: it lacks" if part != "vae" else "does not contain the tensors of an autoencoder of MoA Mini"
    )
    path.unlink()
    refused("cannot be read")


def test_a_header_without_colours_and_ids_beyond_the_vocabulary_are_refused(pack, tmp_path) -> None:
    del pack
    mini, shipped = module("nodes.host.files.mini_files"), module("recipes.mini.data.faces").WEIGHTS
    for part, change, message in (
        ("unet", {}, "'latent_rgb_factors' must be rows of three numbers"),
        ("clip", {"token_ids": torch.full((25,), 49408, dtype=torch.int32)}, "has token ids outside 0 to 49407"),
    ):
        path = tmp_path / f"{part}.safetensors"
        with safe_open(shipped / path.name, framework="pt") as file:
            tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        save_file({**tensors, **change}, path, {**header, "latent_rgb_factors": '{"red": 1}'})
        with pytest.raises(module("moa_attention.formats.errors").StoredFileError, match=message):
            mini.load_unet(path) if part == "unet" else mini.load_text_encoder(path)


@torch.inference_mode()
def test_shipped_autoencoder_keeps_drawings(shipped) -> None:
    """A drawn scene comes back within a few grey levels."""
    import numpy as np

    vae = shipped[2]
    scene = module("recipes.mini.data.scenes").beach(np.random.default_rng(0)).resize((128, 128))
    picture = torch.from_numpy(np.array(scene)).float()[None] / 255
    assert (vae.decode(vae.encode(picture)) - picture).abs().mean() < 0.05
