"""Lets a CUDA-linked torchvision be imported beside a CPU-only torch: its Python code works, its operators are absent.

Copied by `dev.py` into the development environment's site-packages next to a `.pth` file that imports it at start-up.
Until somebody imports torchvision it costs nothing. It is no part of the node pack.
"""

import sys


class _DeclareOperatorsFirst:
    """torchvision registers fake kernels for operators that its library would have declared: declare them instead."""

    def __init__(self) -> None:
        self._busy = False

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name != "torchvision" or self._busy:
            return None
        self._busy = True
        import torch

        if torch.version.cuda is None:
            signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            for operator in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, operator):
                    torch.library.define(f"torchvision::{operator}", signature)
        sys.meta_path.remove(self)
        return None


sys.meta_path.insert(0, _DeclareOperatorsFirst())
