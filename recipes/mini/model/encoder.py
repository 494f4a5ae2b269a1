"""Pretrains the image encoder inside MoA Mini's adapter as a classifier of faces.

A diffusion loss alone trains an encoder slowly. So it first learns, in a few minutes on the training identities, to
classify the parts of a face (skin, hair, head, eyes, nose, beard). The adapter's training continues from there.
"""

import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from ....moa_attention.adapters.vision import ImageEncoder
from ..data.faces import SPLITS, VARIANTS, WORK, load_cutouts, read_archive
from ..data.references import draw_references
from .session import DEVICE

IMAGE_WIDTH = 128
FILE = WORK / "encoder.safetensors"
BATCH = 64


def label_faces() -> tuple[np.ndarray, list[int]]:
    """Class numbers of every drawing's parts, (drawings, parts), and how many classes each part has."""
    faces = read_archive()
    parts = [*faces[0].attributes]
    names = [sorted({face.attributes[part] for face in faces}) for part in parts]
    labels = [[names[i].index(face.attributes[part]) for i, part in enumerate(parts)] for face in faces]
    return np.array(labels), [len(n) for n in names]


class LabelledFaces:
    """Random reference pictures with the classes of their parts.

    Args: side: pixels of a picture.
    """

    def __init__(self, side: int) -> None:
        self.side, self.cutouts = side, load_cutouts()
        self.labels, self.classes = label_faces()

    def draw(self, split: str, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Pictures (count,3,side,side) and class numbers (count,parts)."""
        drawings = np.array(SPLITS[split])[torch.randint(0, len(SPLITS[split]), (count,), generator=generator)]
        drawings = drawings * VARIANTS + torch.randint(0, VARIANTS, (count,), generator=generator).numpy()
        pictures = draw_references(self.cutouts[drawings], self.side, generator)
        return pictures.to(DEVICE), torch.from_numpy(self.labels[drawings]).to(DEVICE)


@torch.no_grad()
def accuracies(encoder: ImageEncoder, heads: nn.ModuleList, faces: LabelledFaces) -> list[float]:
    """Of each part, on 512 pictures of validation identities."""
    pictures, truth = faces.draw("validation", 512, Generator().manual_seed(1))
    features = encoder(pictures)
    return [(head(features).argmax(1) == truth[:, i]).float().mean().item() for i, head in enumerate(heads)]


def main(argv: list[str]) -> None:
    """Train for `--steps`, reporting accuracies on validation identities, and write `.mini/encoder.safetensors`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    torch.manual_seed(arguments.seed)
    encoder = ImageEncoder(IMAGE_WIDTH).to(DEVICE)
    faces = LabelledFaces(encoder.picture)
    heads = nn.ModuleList(nn.Linear(IMAGE_WIDTH, count) for count in faces.classes).to(DEVICE)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=arguments.steps)
    started = time.time()
    for step in range(arguments.steps):
        pictures, truth = faces.draw("train", BATCH, Generator().manual_seed(arguments.seed * 1_000_003 + step))
        features = encoder(pictures)
        loss = torch.stack([F.cross_entropy(head(features), truth[:, i]) for i, head in enumerate(heads)]).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if (step + 1) % 200 == 0:
            found, seconds = accuracies(encoder, heads, faces), time.time() - started
            print(
                json.dumps({"step": step + 1, "loss": loss.item(), "accuracy": found, "seconds": seconds}), flush=True
            )
    save_file(encoder.state_dict(), FILE)
