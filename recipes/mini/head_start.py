"""Initial weights with which the autoencoder already works, so that minutes of training are enough.

The encoder begins as a principal component analysis of 8 x 8 pixel patches: its strided convolutions gather each
patch's pixels into channels (a space-to-depth), the last of them projects to the components. The decoder begins by
painting each patch in its mean colour, smoothly. Everything else is random and learns what these leave out. The
channels that carry this pass the residual blocks unchanged because they are never negative and the blocks start at
zero for them.
"""

import numpy as np
import torch
from torch import Tensor, nn

CHANNELS = 16
SPREAD = 0.65  # root mean square of the first latents: well within the decoder's soft clamp at 3


def patch_components(images: np.ndarray) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of `[N, 128, 128, 3]` uint8: components `[16, 8, 8, 3]`, mean `[8, 8, 3]`, each one's deviation and minimum."""
    patches = images.reshape(-1, 16, 8, 16, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(-1, 192)
    x = torch.from_numpy(patches[::5].astype(np.float32)) / 255
    mean = x.mean(0)
    variance, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    components = vectors.T.flip(0)[:CHANNELS]
    lowest = (x @ components.T).amin(0)
    return components.reshape(CHANNELS, 8, 8, 3), mean.reshape(8, 8, 3), variance.flip(0)[:CHANNELS].sqrt(), lowest


def _randomise(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if name.endswith("conv.4"):
                module.weight.data *= 0.2
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _reserve(conv: nn.Conv2d, rows: int) -> Tensor:
    """Silence the first `rows` output channels of a convolution and give its weight for setting them."""
    conv.weight.data[:rows] = 0
    if conv.bias is not None:
        conv.bias.data[:rows] = 0
    return conv.weight.data


def _set_encoder(layers: nn.Sequential, images: np.ndarray) -> tuple[Tensor, Tensor]:
    components, mean, deviation, lowest = patch_components(images)
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    blocks = [layer for layer in layers if not isinstance(layer, nn.Conv2d)]
    first = _reserve(convs[0], 4)
    first[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    convs[0].bias.data[3] = 1  # a constant, because the strided convolutions have no bias
    width, constant = 3, 3
    for conv in convs[1:3]:
        weight = _reserve(conv, 4 * width + 1)
        for corner in range(4):
            for channel in range(width):
                weight[corner * width + channel, channel, 1 + corner // 2, 1 + corner % 2] = 1
        weight[4 * width, constant, 1, 1] = 1
        width, constant = 4 * width, 4 * width
    weight = _reserve(convs[3], CHANNELS)
    # pixel (y, x) of a patch is corner (y // 4, x // 4) here and, inside it, channel ((y // 2) % 2, y % 2 ...) below
    for y in range(8):
        for x in range(8):
            inner = ((y % 2) * 2 + x % 2) * 3 + ((y // 2 % 2) * 2 + x // 2 % 2) * 12
            weight[:CHANNELS, inner : inner + 3, 1 + y // 4, 1 + x // 4] = components[:, y, x]
    weight[:CHANNELS, constant, 1, 1] = -lowest
    scale = SPREAD * deviation.pow(-0.5) / deviation.mean().sqrt()  # half-way to equal variances
    last = _reserve(convs[4], CHANNELS)
    last[range(CHANNELS), range(CHANNELS), 1, 1] = scale
    shift = (components * mean).sum((1, 2, 3))
    convs[4].bias.data = -scale * (shift - lowest)
    for block, reserved in zip(blocks, (4, *[13] * 3, *[49] * 3, *[CHANNELS] * 3), strict=True):
        _reserve(block.conv[4], reserved)
    return components.mean((1, 2)) / scale[:, None], mean.mean((0, 1))


def _set_decoder(layers: nn.Sequential, colours: Tensor, mean: Tensor) -> None:
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    first = _reserve(convs[0], 3)
    first[:3, :, 1, 1] = colours.T
    convs[0].bias.data[:3] = mean
    smooth = torch.tensor([0.25, 0.5, 0.25])
    for conv in convs[1:4]:
        _reserve(conv, 3)[range(3), range(3)] = torch.outer(smooth, smooth)
    convs[4].weight.data *= 0.05
    convs[4].weight.data[range(3), range(3), 1, 1] = 1
    for block in (layer for layer in layers if hasattr(layer, "conv")):
        _reserve(block.conv[4], 3)


def give_head_start(model: nn.Module, images: np.ndarray) -> None:
    """Set all weights of a tiny autoencoder; `images` `[N, 128, 128, 3]` uint8 are what components are taken from."""
    with torch.no_grad():
        _randomise(model)
        colours, mean = _set_encoder(model.taesd_encoder, images)
        _set_decoder(model.taesd_decoder, colours, mean)
