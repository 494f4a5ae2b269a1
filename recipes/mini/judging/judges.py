"""The judge networks of the evaluation: small, trained on drawn pictures only, never used in training the model.

* `outline`: segments the people in a picture;
* `scene`: classifies the scene;
* `identity`: an embedding of a person, trained to separate the training identities. It shares neither weights nor framing
  nor objective with the image encoder inside the adapter, and the identities it measures are new to it, too.

They ship with the recipe (`judges.safetensors`), so that all measurements use the same networks.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from ..data.dataset import MASK_SIZE, SIZE, Shard, load
from ..data.faces import SPLITS, WORK
from ..data.scenes import SCENES
from ..model.session import DEVICE

FILE = Path(__file__).with_name("judges.safetensors")
VIEW = 64
"""Pixels of the side of every network's input."""
EMBEDDING = 128
SHARPNESS = 16.0
"""Scale of the cosines before the softmax in training the identity network."""


def conv_block(before: int, after: int) -> nn.Sequential:
    """Two convolutions with a halving between: (B,before,H,W) -> (B,after,H/2,W/2)."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(after, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class JudgeNetworks(nn.Module):
    """The three networks; each takes (B,3,64,64) in [0,1]."""

    def __init__(self) -> None:
        super().__init__()
        self.outline = nn.Sequential(
            conv_block(3, 24), nn.Conv2d(24, 48, 5, padding=4, dilation=2), nn.ReLU(),
            nn.Conv2d(48, 48, 5, padding=8, dilation=4), nn.ReLU(), nn.Conv2d(48, 1, 1),
        )  # fmt: skip
        self.scene = nn.Sequential(
            conv_block(3, 16), conv_block(16, 32), conv_block(32, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, len(SCENES))
        )  # fmt: skip
        self.identity = nn.Sequential(
            conv_block(3, 24), conv_block(24, 48), conv_block(48, 96), conv_block(96, 128), nn.Flatten(), nn.Dropout(0.2), nn.Linear(2048, EMBEDDING)
        )  # fmt: skip

    def segment(self, pictures: Tensor) -> Tensor:
        """(B,3,128,128) -> (B,32,32), a soft mask of all people."""
        return torch.sigmoid(self.outline(F.avg_pool2d(pictures, SIZE // VIEW)))[:, 0]

    def classify_scene(self, pictures: Tensor) -> Tensor:
        """(B,3,128,128) -> (B,) index into SCENES."""
        return self.scene(F.avg_pool2d(pictures, SIZE // VIEW)).argmax(dim=1)

    def embed(self, views: Tensor) -> Tensor:
        """(B,3,64,64) portraits -> (B,EMBEDDING), of unit length."""
        return F.normalize(self.identity(views), dim=1)


def load_judges() -> JudgeNetworks:
    """The networks that ship with the recipe."""
    judges = JudgeNetworks()
    judges.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(FILE).items()})
    return judges.eval().requires_grad_(False)


def portrait(picture: Tensor, mask: Tensor, shift: Tensor | None = None) -> Tensor:
    """Crop to the person under a mask, from the top of the head to the lower edge of the picture.

    Args: picture (3,128,128), mask (32,32), shift (3,) small random offsets of x, y and size for training.
    Returns: (3,64,64).
    """
    shift = torch.zeros(3) if shift is None else shift
    weight = mask.clamp(min=0) + 1e-6
    middle = float((weight.sum(0) * torch.arange(MASK_SIZE)).sum() / weight.sum()) / MASK_SIZE + float(shift[0])
    rows = (mask > 0.5).any(dim=1).nonzero()
    top = (float(rows[0]) / MASK_SIZE if len(rows) else 0.3) + float(shift[1])
    side = max(0.4, (1 - top) * (1 + float(shift[2])))
    box = torch.tensor([[[side, 0, 2 * middle - 1], [0, side, 2 * top + side - 1]]])
    grid = F.affine_grid(box, [1, 3, VIEW, VIEW], align_corners=False)
    return F.grid_sample(picture[None], grid, align_corners=False, padding_mode="border")[0]


def pick(shard: Shard, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures (B,3,128,128) and masks (B,2,32,32), in [0,1]."""
    images = torch.from_numpy(np.stack([shard.images[i] for i in chosen.tolist()])).movedim(-1, 1).float() / 255
    return images, torch.from_numpy(shard.masks[chosen.numpy()]).float() / 255


def outline_loss(judges: JudgeNetworks, shard: Shard, chosen: Tensor, generator: Generator) -> Tensor:
    pictures, masks = pick(shard, chosen)
    logits = judges.outline(F.avg_pool2d(pictures, 2).to(DEVICE))[:, 0]
    return F.binary_cross_entropy_with_logits(logits, masks.sum(dim=1).clamp(max=1).to(DEVICE))


def scene_loss(judges: JudgeNetworks, shard: Shard, chosen: Tensor, generator: Generator) -> Tensor:
    pictures, _ = pick(shard, chosen)
    truth = torch.from_numpy(shard.records["scene"][chosen.numpy()].astype(np.int64))
    return F.cross_entropy(judges.scene(F.avg_pool2d(pictures, 2).to(DEVICE)), truth.to(DEVICE))


def random_portraits(shard: Shard, chosen: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """One person of each picture: views (B,3,64,64) and identities (B,)."""
    pictures, masks = pick(shard, chosen)
    records = shard.records[chosen.numpy()]
    people = torch.from_numpy(records["people"].astype(np.int64))
    picked = (torch.rand(len(chosen), generator=generator) * people).long().tolist()
    shifts = 0.03 * torch.randn(len(chosen), 3, generator=generator)
    views = [portrait(p, m[i], s) for p, m, i, s in zip(pictures, masks, picked, shifts, strict=True)]
    mirrored = [v.flip(-1) if torch.rand((), generator=generator) < 0.5 else v for v in views]
    return torch.stack(mirrored), torch.from_numpy(records["identity"][range(len(picked)), picked].astype(np.int64))


def roughen(views: Tensor, generator: Generator) -> Tensor:
    """Bent lines, blurred detail, noise and a slight tint for half of the views (B,3,64,64), as a small model draws faces.

    Without it the identity network, trained on clean drawings only, would measure the drawing and not the person.
    """
    count = len(views)
    bends = 0.07 * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(count, 2, 6, 6, generator=generator)
    bends = F.interpolate(bends, size=VIEW, mode="bicubic", align_corners=False).movedim(1, -1)
    straight = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [*views.shape], align_corners=False)
    rough = F.grid_sample(views, straight + bends, align_corners=False, padding_mode="border")
    side = int(torch.randint(14, VIEW, (), generator=generator))
    rough = F.interpolate(F.interpolate(rough, size=side, mode="area"), size=VIEW, mode="bilinear")
    tint = 1 + 0.04 * torch.randn(count, 3, 1, 1, generator=generator)
    rough = (rough * tint + 0.05 * torch.randn(rough.shape, generator=generator)).clamp(0, 1)
    return torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.5, rough, views)


def train_judge(
    name: str,
    steps: int,
    loss: Callable[..., Tensor],
    parameters: list[nn.Parameter],
    judges: JudgeNetworks,
    rate: float,
) -> None:
    """Supervised training with one-cycle AdamW, batches of 64."""
    shard, started = load("train"), time.time()
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
    for step in range(steps):
        generator = Generator().manual_seed(step)
        chosen = torch.randint(len(shard.records), (64,), generator=generator)
        value = loss(judges, shard, chosen, generator)
        value.backward()
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
        if (step + 1) % 100 == 0:
            line = {"judge": name, "step": step + 1, "loss": value.item(), "seconds": time.time() - started}
            print(json.dumps(line), flush=True)


def rank1(probes: Tensor, gallery: Tensor, probe_owners: Tensor, gallery_owners: Tensor) -> float:
    """Share of probes (N,E) that are nearer to another picture of their owner (M,E) than to pictures of 19 others."""
    generator, right = Generator().manual_seed(0), []
    for i in range(len(probes)):
        same = (gallery_owners == probe_owners[i]).nonzero()[:, 0]
        same = same[same != i]
        others = (gallery_owners != probe_owners[i]).nonzero()[:, 0]
        if len(same):
            rivals = others[torch.randperm(len(others), generator=generator)[:19]]
            right.append(float(probes[i] @ gallery[same[0]] > (gallery[rivals] @ probes[i]).max()))
    return float(np.mean(right))


@torch.no_grad()
def validate(judges: JudgeNetworks) -> dict[str, float]:
    """Accuracy on drawn pictures of validation identities: the ceiling of any evaluation."""
    shard, generator = load("validation"), Generator().manual_seed(1)
    every = torch.arange(len(shard.records))
    pictures, masks = pick(shard, every)
    truth, found = masks.sum(dim=1).clamp(max=1) > 0.5, judges.segment(pictures) > 0.5
    scenes = torch.from_numpy(shard.records["scene"].astype(np.int64))
    views, owners = random_portraits(shard, every, generator)
    others, other_owners = random_portraits(shard, every, generator)
    a, rough, b = (judges.embed(v) for v in (views, roughen(views, generator), others))
    return {
        "outline_iou": ((found & truth).sum() / (found | truth).sum()).item(),
        "scene_accuracy": (judges.classify_scene(pictures) == scenes).float().mean().item(),
        "identity_rank1_of_20": rank1(a, b, owners, other_owners),
        "identity_rank1_of_20_half_roughened": rank1(rough, b, owners, other_owners),
    }


def main(argv: list[str]) -> None:
    """Train all networks and write `judges.safetensors`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--steps", type=int, default=3000, help="steps of the identity network; the others take a fifth of them"
    )
    steps = parser.parse_args(argv).steps
    torch.manual_seed(0)
    judges = JudgeNetworks().to(DEVICE)
    classes = nn.Parameter(torch.randn(len(SPLITS["train"]), EMBEDDING).to(DEVICE))

    def identity_loss(judges: JudgeNetworks, shard: Shard, chosen: Tensor, generator: Generator) -> Tensor:
        views, owners = random_portraits(shard, chosen, generator)
        views = roughen(views, generator)
        return F.cross_entropy(
            SHARPNESS * judges.embed(views.to(DEVICE)) @ F.normalize(classes, dim=1).T, owners.to(DEVICE)
        )

    train_judge("outline", steps // 5, outline_loss, [*judges.outline.parameters()], judges, 3e-3)
    train_judge("scene", steps // 5, scene_loss, [*judges.scene.parameters()], judges, 3e-3)
    train_judge("identity", steps, identity_loss, [*judges.identity.parameters(), classes], judges, 3e-3)
    half = {k: v.half() if v.is_floating_point() else v for k, v in judges.state_dict().items()}
    save_file(half, FILE)
    numbers = json.dumps(validate(load_judges()))
    print(numbers)
    (WORK / "judges.json").write_text(numbers)
