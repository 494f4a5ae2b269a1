"""The router's map while a picture is being sampled, as the host's own preview on a node."""

from __future__ import annotations

import torch
from comfy_api.latest import ComfyAPISync
from comfy_execution.utils import get_executing_context

from ....moa_attention.method.attention import resize
from ....moa_attention.method.layer import Observe, Routing
from ....moa_attention.method.spec import LayerSpec
from ....moa_attention.pictures import heat_map, to_image
from ....moa_attention.run.listener import CallInfo, RunListener

SIDE = 256
"""Pixels of the preview's side."""


class LiveMap(RunListener):
    """Shows the first picture's map after each U-Net call, on the node that is being executed where this is made.

    To show a map, the host must wait for the device: one wait a call.
    """

    def __init__(self) -> None:
        context = get_executing_context()
        self.node = None if context is None else context.node_id
        self.maps: list[torch.Tensor] = []

    def begin_call(self, call: CallInfo) -> Observe:
        self.maps = []

        def observe(spec: LayerSpec, routing: Routing) -> None:
            if spec.supervised:
                self.maps.append(routing.personal[:1].detach().float().unflatten(1, routing.grid))

        return observe

    def end_call(self, call: CallInfo) -> None:
        if self.node is None or not self.maps:
            return
        grid = max(((m.shape[-2], m.shape[-1]) for m in self.maps), key=lambda shape: shape[0] * shape[1])
        mean = torch.stack([resize(m[None], grid)[0, 0] for m in self.maps]).mean(dim=0).cpu()
        picture = to_image(heat_map(mean), SIDE)
        ComfyAPISync().execution.set_progress(call.evaluation, call.evaluation, self.node, picture)
