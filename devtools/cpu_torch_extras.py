"""Fallback for a CPU-only torch beside a torchvision and a torchaudio that were built for CUDA.

Some package indexes offer no matching builds of the two. Both then fail on import, although the host needs only their
Python code: torchvision registers fake kernels for operators that its library would have declared, torchaudio takes a
library that does not load for a broken installation. This file declares the operators first, and lets torchaudio take
the way it has for an installation without libraries. No file of either package is changed.

`dev.py` copies it into the environment's site-packages beside a `.pth` file that imports it when Python starts, and
only where the two cannot be imported otherwise. With a torch that has CUDA it does nothing. It is no part of the node
pack.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader

OPERATORS = ("nms", "qnms")
SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


class _LoaderOfNoLibraries(SourceFileLoader):
    """Of `torchaudio._extension.utils`: its search for a library finds none."""

    def exec_module(self, module):
        super().exec_module(module)
        vars(module)["_load_lib"] = lambda name: False


class _Fallback(MetaPathFinder):
    """Acts when either package is about to look for its libraries; torch is imported by then."""

    def find_spec(self, fullname, path=None, target=None) -> ModuleSpec | None:
        if fullname not in ("torchvision.extension", "torchaudio._extension.utils"):
            return None
        import torch

        if torch.version.cuda is not None:
            return None
        if fullname == "torchvision.extension":
            for operator in OPERATORS:
                if not hasattr(torch.ops.torchvision, operator):
                    torch.library.define(f"torchvision::{operator}", SIGNATURE)
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _LoaderOfNoLibraries(fullname, spec.origin)
        return spec


sys.meta_path.insert(0, _Fallback())
