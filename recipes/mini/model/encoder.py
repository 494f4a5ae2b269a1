"""Pretrains the image encoder inside MoA Mini's adapter on the training people.

A diffusion loss alone trains an encoder slowly. So it first learns, in a few minutes, to classify the parts of a face (skin,
hair, head, eyes, nose, beard), and to find two drawings of one person among those of others (InfoNCE, arXiv 1807.03748). The
adapter's training continues from there.
"""

import argparse
import json
import math
import time
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, Tensor, nn

from ....moa_attention.adapters.vision import ImageEncoder
from ....moa_attention.subjects.reference import prepare_reference
from ....moa_attention.training.precision import mixed_precision
from ..data.faces import SPLITS, VARIANTS, WORK, load_cutouts, read_archive
from ..data.identities import Identities
from ..data.references import draw_references, other_drawings
from ..judging.cases import CANDIDATES
from .session import DEVICE

IMAGE_WIDTH = 128
FILE = WORK / "encoder.safetensors"
PEOPLE = 64
"""In a batch, each in two drawings."""
TEMPERATURE = 0.1


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

    def draw(self, split: str, generator: Generator) -> tuple[Tensor, Tensor]:
        """Two drawings of each of PEOPLE: pictures (2 PEOPLE,3,side,side), the second ones after the first; parts (2 PEOPLE,parts)."""
        people = torch.randperm(len(SPLITS[split]), generator=generator)[:PEOPLE] + SPLITS[split].start
        first = people * VARIANTS + torch.randint(VARIANTS, (PEOPLE,), generator=generator)
        drawings = torch.cat([first, other_drawings(first, generator)]).numpy()
        pictures = draw_references(self.cutouts[drawings], self.side, generator)
        return pictures.to(DEVICE), torch.from_numpy(self.labels[drawings]).to(DEVICE)


def contrast(features: Tensor) -> Tensor:
    """Mean cross-entropy of finding each drawing's other one, (2P,F), by the cosine."""
    unit = F.normalize(features, dim=1)
    alike = unit @ unit.T / TEMPERATURE
    alike = alike.masked_fill(torch.eye(len(unit), dtype=torch.bool, device=unit.device), -math.inf)
    others = torch.arange(len(unit), device=unit.device).roll(len(unit) // 2)
    return F.cross_entropy(alike, others)


@cache
def pairs_in_use(split: str, noun: str, side: int) -> tuple[Tensor, Tensor]:
    """Two drawings of each person of one sex, prepared as in use: (P,3,side,side) twice."""
    identities = Identities()
    people = [i for i in SPLITS[split] if identities.noun(i) == noun]
    first, second = (torch.cat([identities.reference(i, variant) for i in people]) for variant in (0, 1))
    return prepare_reference(first, None, side), prepare_reference(second, None, side)


@torch.no_grad()
def recognition(encoder: ImageEncoder, split: str = "validation") -> float:
    """Probability that of CANDIDATES people of one sex the right one is nearest, with references prepared as in use."""
    right = []
    for noun in ("man", "woman"):
        pictures = pairs_in_use(split, noun, encoder.picture)
        shown, sought = (F.normalize(encoder(each.to(DEVICE)), dim=1) for each in pictures)
        alike = sought @ shown.T
        nearer = (alike > alike.diagonal()[:, None]).sum(1).tolist()
        others, rivals = len(alike) - 1, CANDIDATES - 1
        right += [math.comb(others - n, rivals) / math.comb(others, rivals) for n in nearer]
    return float(np.mean(right))


def main(argv: list[str]) -> None:
    """Train for `--steps`, reporting the recognition of validation people, and write `.mini/encoder.safetensors`."""
    parser = argparse.ArgumentParser(prog="mini.model.encoder", description=__doc__)
    parser.add_argument("--steps", type=int, default=1800)
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
        pictures, truth = faces.draw("train", Generator().manual_seed(arguments.seed * 1_000_003 + step))
        with mixed_precision(DEVICE):
            features = encoder(pictures).float()
        parts = torch.stack([F.cross_entropy(head(features), truth[:, i]) for i, head in enumerate(heads)]).mean()
        loss = parts + contrast(features)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if (step + 1) % 200 == 0:
            line = {"step": step + 1, "parts": parts.item(), "loss": loss.item(), "recognised": recognition(encoder)}
            print(json.dumps({**line, "seconds": round(time.time() - started)}), flush=True)
            save_file(encoder.state_dict(), FILE)
    save_file(encoder.state_dict(), FILE)
