"""Generated pictures on disk until an evaluation ends: stopped at any moment, the same command resumes, and a bar shows how far it is."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ....moa_attention.formats.atomic import replacing
from ..data.faces import WEIGHTS
from .pipeline import ImageRequest, MiniPipeline, batches


class KeptPictures:
    """Runs of one pipeline, each under a name.

    Args:
        folder: where they are kept; pictures of other weights than those in `weights/mini` are deleted from it.
        total: pictures of all runs.
    """

    def __init__(self, pipeline: MiniPipeline, folder: Path, total: int) -> None:
        self.pipeline, self.parent, self.folder = pipeline, folder, folder / weights_hash()
        for other in folder.glob("*"):
            if other != self.folder:
                shutil.rmtree(other)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.bar = tqdm(total=total, desc="sample", unit="picture")

    def generate(
        self, name: str, requests: Sequence[ImageRequest], *settings: Any, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """As `MiniPipeline.generate`, batch by batch."""
        made = []
        for batch in batches(requests):
            file = self.folder / f"{name}-{requests_hash(batch)}.safetensors"
            if not file.exists():
                images, maps = self.pipeline.generate(batch, *settings, **options)
                with replacing(file) as part:
                    save_file({"images": images, "maps": maps}, part)
            kept = load_file(file)
            made.append((kept["images"], kept["maps"]))
            self.bar.update(len(batch))
        images, maps = zip(*made, strict=True)
        return torch.cat(images), torch.cat(maps)

    def generate_prior(self, requests: Sequence[ImageRequest]) -> Tensor:
        """As `MiniPipeline.generate_prior`."""
        return self.generate("prior", [replace(request, subjects=()) for request in requests], None)[0]

    def finish(self) -> None:
        """Delete the pictures: all is measured."""
        self.bar.close()
        shutil.rmtree(self.parent)


def weights_hash() -> str:
    """Changes with every byte of `weights/mini`."""
    content = hashlib.sha256()
    for file in sorted(WEIGHTS.glob("*.safetensors")):
        content.update(file.read_bytes())
    return content.hexdigest()[:16]


def requests_hash(requests: Sequence[ImageRequest]) -> str:
    """Changes with every prompt, subject and seed."""
    content = hashlib.sha256()
    for request in requests:
        content.update(f"{request.prompt}|{request.seed}".encode())
        for subject in request.subjects:
            content.update(subject.word.encode() + subject.features.numpy().tobytes())
    return content.hexdigest()[:16]
