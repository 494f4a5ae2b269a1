"""FastComposer's file as it is published: names and shapes of its tensors, filled by a function of the shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Iterator[tuple[str, tuple[int, ...]]]
MULTIPLES = (1, 2, 4, 4)


@dataclass(frozen=True)
class Widths:
    """The published ones; tests of numbers take smaller ones."""

    channels: int = 320
    text: int = 768
    vision: int = 1024
    image: int = 768
    vocabulary: int = 49408
    text_blocks: int = 12
    patch: int = 14


TINY = Widths(channels=32, text=64, vision=128, image=48, vocabulary=8, text_blocks=1, patch=56)


def meta(*shape: int) -> Tensor:
    """Shapes without contents: a full-size file in no memory."""
    return torch.empty(shape, device="meta")


def random(seed: int) -> Callable[..., Tensor]:
    """Halves that keep signals their size."""
    generator = torch.Generator().manual_seed(seed)

    def make(*shape: int) -> Tensor:
        noise = torch.randn(shape, generator=generator)
        return (noise / shape[-1] ** 0.5 if len(shape) > 1 else 1 + 0.1 * noise).half()

    return make


def tensors(widths: Widths, make: Callable[..., Tensor] = meta, prefix: str = "") -> dict[str, Tensor]:
    """A whole file; of the VAE, which is never read, only the first tensor."""
    parts = {
        "text_encoder.": text_encoder(widths),
        "image_encoder.vision_model.": vision(widths),
        "image_encoder.": iter([("visual_projection.weight", (widths.image, widths.vision))]),
        "vae.": linear("encoder.conv_in", 128, 3, 3, 3),
        "unet.": unet(widths.channels, widths.text),
        "postfuse_module.": postfuse(widths.text, widths.image),
    }
    found = {prefix + part + name: make(*shape) for part, shapes in parts.items() for name, shape in shapes}
    found[f"{prefix}text_encoder.embeddings.position_ids"] = torch.arange(77)[None]
    return found


def linear(name: str, out: int, *rest: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (out, *rest)
    if bias:
        yield f"{name}.bias", (out,)


def postfuse(text: int, image: int) -> Shapes:
    for name, width in (("mlp1", text + image), ("mlp2", text)):
        yield from linear(f"{name}.layernorm", width)
        yield from linear(f"{name}.fc1", text, width)
        yield from linear(f"{name}.fc2", text, text)
    yield from linear("layer_norm", text)


def clip_block(name: str, width: int) -> Shapes:
    for projection in "kvq":
        yield from linear(f"{name}.self_attn.{projection}_proj", width, width)
    yield from linear(f"{name}.self_attn.out_proj", width, width)
    yield from linear(f"{name}.layer_norm1", width)
    yield from linear(f"{name}.mlp.fc1", 4 * width, width)
    yield from linear(f"{name}.mlp.fc2", width, 4 * width)
    yield from linear(f"{name}.layer_norm2", width)


def vision(widths: Widths) -> Shapes:
    yield "embeddings.class_embedding", (widths.vision,)
    yield "embeddings.patch_embedding.weight", (widths.vision, 3, widths.patch, widths.patch)
    yield "embeddings.position_embedding.weight", ((224 // widths.patch) ** 2 + 1, widths.vision)
    yield from linear("pre_layrnorm", widths.vision)
    for n in range(24):
        yield from clip_block(f"encoder.layers.{n}", widths.vision)
    yield from linear("post_layernorm", widths.vision)


def text_encoder(widths: Widths) -> Shapes:
    yield "embeddings.token_embedding.weight", (widths.vocabulary, widths.text)
    yield "embeddings.position_embedding.weight", (77, widths.text)
    for n in range(widths.text_blocks):
        yield from clip_block(f"encoder.layers.{n}", widths.text)
    yield from linear("final_layer_norm", widths.text)


def resnet(name: str, before: int, after: int, time: int) -> Shapes:
    yield from linear(f"{name}.norm1", before)
    yield from linear(f"{name}.conv1", after, before, 3, 3)
    yield from linear(f"{name}.time_emb_proj", after, time)
    yield from linear(f"{name}.norm2", after)
    yield from linear(f"{name}.conv2", after, after, 3, 3)
    if before != after:
        yield from linear(f"{name}.conv_shortcut", after, before, 1, 1)


def transformer(name: str, width: int, text: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    yield from linear(f"{name}.norm", width)
    yield from linear(f"{name}.proj_in", width, width, 1, 1)
    for which, context in (("attn1", width), ("attn2", text)):
        yield from linear(f"{block}.{which}.to_q", width, width, bias=False)
        yield from linear(f"{block}.{which}.to_k", width, context, bias=False)
        yield from linear(f"{block}.{which}.to_v", width, context, bias=False)
        yield from linear(f"{block}.{which}.to_out.0", width, width)
    yield from linear(f"{block}.ff.net.0.proj", 8 * width, width)
    yield from linear(f"{block}.ff.net.2", width, 4 * width)
    for n in (1, 2, 3):
        yield from linear(f"{block}.norm{n}", width)
    yield from linear(f"{name}.proj_out", width, width, 1, 1)


def unet(channels: int, text: int) -> Shapes:
    """SD1.5's, as diffusers names it."""
    time, widths = 4 * channels, [channels * m for m in MULTIPLES]
    yield from linear("conv_in", channels, 4, 3, 3)
    yield from linear("time_embedding.linear_1", time, channels)
    yield from linear("time_embedding.linear_2", time, time)
    now, skips = channels, [channels]
    for i, width in enumerate(widths):
        for j in range(2):
            yield from resnet(f"down_blocks.{i}.resnets.{j}", now, width, time)
            if i < 3:
                yield from transformer(f"down_blocks.{i}.attentions.{j}", width, text)
            now = width
            skips.append(now)
        if i < 3:
            yield from linear(f"down_blocks.{i}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(now)
    yield from resnet("mid_block.resnets.0", now, now, time)
    yield from transformer("mid_block.attentions.0", now, text)
    yield from resnet("mid_block.resnets.1", now, now, time)
    for i, width in enumerate(reversed(widths)):
        for j in range(3):
            yield from resnet(f"up_blocks.{i}.resnets.{j}", now + skips.pop(), width, time)
            if i > 0:
                yield from transformer(f"up_blocks.{i}.attentions.{j}", width, text)
            now = width
        if i < 3:
            yield from linear(f"up_blocks.{i}.upsamplers.0.conv", width, width, 3, 3)
    yield from linear("conv_norm_out", channels)
    yield from linear("conv_out", 4, channels, 3, 3)
