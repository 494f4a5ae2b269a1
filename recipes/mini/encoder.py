"""The image encoder inside MoA Mini's adapter: first taught to read faces, then trained on with the adapter.

A diffusion loss alone teaches an encoder slowly. So it first learns to name the parts a face is drawn from (skin, hair,
head, eyes, nose, beard) from pictures of the training identities, in a few minutes. The adapter's training goes on from there.
"""

import argparse
import json
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Generator, nn

from ...moa_attention.encoder import ImageEncoder
from .faces import SPLITS, VARIANTS, WORK, load_cutouts, read_archive
from .references import draw_references
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


def main(argv: list[str]) -> None:
    """Train for a number of minutes, reporting accuracy on validation identities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)

    torch.manual_seed(arguments.seed)
    cutouts, (labels, classes) = load_cutouts(), label_faces()
    encoder = ImageEncoder(IMAGE_WIDTH).to(DEVICE)
    heads = nn.ModuleList(nn.Linear(IMAGE_WIDTH, count) for count in classes).to(DEVICE)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=arguments.steps)

    def pictures(split: str, count: int, generator: Generator) -> tuple[torch.Tensor, torch.Tensor]:
        drawings = np.array(SPLITS[split])[torch.randint(0, len(SPLITS[split]), (count,), generator=generator)]
        drawings = drawings * VARIANTS + torch.randint(0, VARIANTS, (count,), generator=generator).numpy()
        seen = draw_references(cutouts[drawings], encoder.picture, generator)
        return seen.to(DEVICE), torch.from_numpy(labels[drawings]).to(DEVICE)

    started = time.time()
    for step in range(arguments.steps):
        seen, truth = pictures("train", BATCH, Generator().manual_seed(arguments.seed * 1_000_003 + step))
        features = encoder(seen)
        loss = torch.stack([F.cross_entropy(head(features), truth[:, i]) for i, head in enumerate(heads)]).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if (step + 1) % 200 == 0:
            with torch.no_grad():
                seen, truth = pictures("validation", 512, Generator().manual_seed(1))
                features = encoder(seen)
                right = [
                    (head(features).argmax(1) == truth[:, i]).float().mean().item() for i, head in enumerate(heads)
                ]
            line = {"step": step + 1, "loss": loss.item(), "accuracy": right, "seconds": time.time() - started}
            print(json.dumps(line), flush=True)
    save_file(encoder.state_dict(), FILE)
