"""The method: Mixture-of-Attention (arXiv 2404.11565) in plain torch, without ComfyUI.

Shapes used throughout: **B** rows of a U-Net call · **N** latent pixels of a layer (h·w) · **M** context tokens ·
**S** subject slots · **D** hidden width · **T** text width · **F** image-feature width · **L** transformer blocks.
Expert 0 is the prior, expert 1 the personalised branch.
"""

from .adapters.moa import MoAAdapter
from .formats.adapter import load_adapter, read_header, save_adapter
from .formats.errors import StoredFileError
from .method.layer import MoALayer, Routing
from .method.spec import LayerSpec, MoAConfig
from .run.step import Step
from .run.trace import Trace

__all__ = [
    "StoredFileError",
    "LayerSpec",
    "MoAAdapter",
    "MoAConfig",
    "MoALayer",
    "Routing",
    "Step",
    "Trace",
    "load_adapter",
    "read_header",
    "save_adapter",
]
