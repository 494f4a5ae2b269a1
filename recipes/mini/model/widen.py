"""Half as wide again: a U-Net of 96 channels that paints nearly what one of 64 does, as the start of its training.

After Net2Net (arXiv 1511.05641): of two neighbouring channels one is doubled, and whoever reads it shares its weight between
the two, unevenly, so that they learn different things. Attention doubles whole heads. Only the norms' statistics shift a
little, and the timestep's frequencies are others: its first layer is fitted anew by least squares (ours).
"""

import argparse
from pathlib import Path

import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from torch import Tensor

from ....nodes.host.model.mini import UNET_CONFIG, Mini
from ..data.faces import WEIGHTS, WORK
from .text import token_table
from .unet import export_model, load_model, new_model

HEAD = Mini.unet_extra_config["num_head_channels"]
TIMES = 1000


def channel_map(count: int) -> Tensor:
    """Which of `count` old channels each of 1.5 `count` new ones is. Groups of norms and concatenations stay together."""
    pairs = torch.arange(count).view(-1, 2)
    doubled = pairs[torch.arange(len(pairs)), torch.arange(len(pairs)) % 2]
    return torch.cat((pairs, doubled[:, None]), 1).flatten()


def head_map(count: int) -> Tensor:
    """The same for the inner channels of an attention, whose heads stay whole."""
    heads = torch.arange(count // HEAD)
    more = torch.cat((heads, heads[: len(heads) // 2]))
    return (more[:, None] * HEAD + torch.arange(HEAD)).flatten()


def share(weight: Tensor, chosen: Tensor) -> Tensor:
    """Inputs `[out, new, ...]` of a weight `[out, old, ...]`: the copies of one share its weight unevenly."""
    portions = torch.rand(len(chosen)) + 0.5
    totals = torch.zeros(weight.shape[1]).index_add_(0, chosen, portions)
    portions = (portions / totals[chosen]).view(1, -1, *[1] * (weight.ndim - 2))
    return weight[:, chosen] * portions


def fit_times(weight: Tensor) -> Tensor:
    """First weight `[out, 1.5 n]` of the time embedding, nearest over all timesteps to what `[out, n]` gave."""
    times, width = torch.arange(TIMES), weight.shape[1]
    old, new = (timestep_embedding(times, n).double() for n in (width, width * 3 // 2))
    return (torch.linalg.pinv(new, rtol=0.03) @ (old @ weight.double().T)).T.float()


def widen(name: str, tensor: Tensor) -> Tensor:
    """One parameter of the wider U-Net."""
    inner = any(part in name for part in ("to_q", "to_k", "to_v"))
    if tensor.ndim > 1:
        if name == "time_embed.0.weight":
            tensor = fit_times(tensor)
        elif "to_out" in name:
            tensor = share(tensor, head_map(tensor.shape[1]))
        elif name != "input_blocks.0.0.weight" and not ("attn2" in name and "to_q" not in name):
            tensor = share(tensor, channel_map(tensor.shape[1]))
    if name.startswith("out.2."):  # the latents' channels
        return tensor
    return tensor[(head_map if inner else channel_map)(len(tensor))]


def main(argv: list[str]) -> None:
    """Write the wider weights to `.mini/wide`."""
    parser = argparse.ArgumentParser(prog="mini.model.widen", description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=WEIGHTS, help="folder of weights, or training state")
    torch.manual_seed(0)
    narrow, _ = load_model(parser.parse_args(argv).path)
    wide, _ = new_model(token_table(narrow["text"]).ids, UNET_CONFIG["model_channels"] * 3 // 2)
    wide["text"].load_state_dict(narrow["text"].state_dict())
    weights = {name: widen(name, tensor) for name, tensor in narrow["unet"].state_dict().items()}
    wide["unet"].load_state_dict(weights)
    export_model(wide, WORK / "wide", 0)
