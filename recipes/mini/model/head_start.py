"""Initial weights of the autoencoder: an encoder that needs no training, and a decoder that starts with mean colours.

MoA Mini's latents are linear (see `latents.py`), and the host's tiny encoder can compute them exactly: two strided
convolutions gather each patch's pixels into channels (a space-to-depth), the third projects them to the components. The
channels that carry this are never negative, and the residual blocks add nothing to them, so every ReLU passes them
unchanged. The decoder starts with each patch in its mean colour, smoothed; its other channels are random and learn the
rest.
"""

import torch
from comfy.taesd.taesd import Block
from torch import Tensor, nn

from ....nodes.host.model.mini import MiniLatent
from ..data.latents import CHANNELS, PATCH, projection


def _convolutions(layers: nn.Sequential) -> list[nn.Conv2d]:
    return [layer for layer in layers if isinstance(layer, nn.Conv2d)]


def _clear(conv: nn.Conv2d, rows: int) -> Tensor:
    """Zero the first `rows` output channels of a convolution; returns its weight."""
    conv.weight.data[:rows] = 0
    if conv.bias is not None:
        conv.bias.data[:rows] = 0
    return conv.weight.data


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # the strided ones and those after an upsampling have none
    return conv.bias.data


def set_encoder(encoder: nn.Sequential) -> None:
    """Make the encoder compute `latents.encode(x) / MiniLatent.scale_factor`."""
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            _clear(module, len(module.weight))
    first, *gathering, project, last = _convolutions(encoder)
    first.weight.data[[0, 1, 2], [0, 1, 2], 1, 1] = 1
    _bias(first)[3] = 1  # a constant, because the strided convolutions have no bias
    width = constant = 3
    for conv in gathering:
        for corner in range(4):
            for channel in range(width):
                conv.weight.data[corner * width + channel, channel, 1 + corner // 2, 1 + corner % 2] = 1
        conv.weight.data[4 * width, constant, 1, 1] = 1
        width = constant = 4 * width

    p = projection()
    basis = p["basis"].T.reshape(CHANNELS, 3, PATCH, PATCH)
    lowest = p["basis"].clamp(max=0).sum(0)  # of pixels in 0 to 1; subtracted, a component is never negative
    for y in range(PATCH):
        for x in range(PATCH):
            channel = 12 * (y // 2 % 2 * 2 + x // 2 % 2) + 3 * (y % 2 * 2 + x % 2)
            project.weight.data[:CHANNELS, channel : channel + 3, 1 + y // 4, 1 + x // 4] = basis[:, :, y, x]
    project.weight.data[:CHANNELS, constant, 1, 1] = -lowest
    gain = p["gain"] / MiniLatent.scale_factor
    last.weight.data[range(CHANNELS), range(CHANNELS), 1, 1] = gain
    _bias(last)[:] = gain * (lowest - p["mean"] @ p["basis"])


def start_decoder(decoder: nn.Sequential) -> None:
    """Random weights, except for three channels that carry the smoothed mean colour of each patch to the output."""
    for name, module in decoder.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if name.endswith("conv.4"):
                module.weight.data *= 0.2
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    p = projection()
    colours = p["basis"].reshape(3, PATCH * PATCH, CHANNELS).mean(1) * MiniLatent.scale_factor / p["gain"]
    first, *smoothing, last = _convolutions(decoder)
    _clear(first, 3)[:3, :, 1, 1] = colours
    _bias(first)[:3] = p["mean"].reshape(3, -1).mean(1)
    blur = torch.tensor([0.25, 0.5, 0.25])
    for conv in smoothing:
        _clear(conv, 3)[range(3), range(3)] = torch.outer(blur, blur)
    last.weight.data *= 0.05
    last.weight.data[range(3), range(3), 1, 1] = 1
    for block in decoder:
        if isinstance(block, Block):
            _clear(_convolutions(block.conv)[-1], 3)
