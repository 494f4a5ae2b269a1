"""The judges of the evaluation: small networks trained on real renders only, never used in training the model.

* `outline`: where people are in a picture;
* `scene`: which place it shows;
* `identity`: an embedding of a person, trained to tell the training identities apart. It shares no weights, pictures'
  framing or objective with the image encoder inside the adapter, and the identities it judges by are unknown to it too.

They come with the recipe (`judges.safetensors`), so that everybody measures with the same eyes.
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

from .dataset import MASK_SIZE, SIZE, Shard, load
from .faces import SPLITS, WORK
from .scenes import SCENES
from .session import DEVICE

FILE = Path(__file__).with_name("judges.safetensors")
VIEW = 64
"""Side of what every judge looks at, in pixels."""
EMBEDDING = 128
SHARPNESS = 16.0
"""Scale of the cosines before the softmax of the identity judge's training."""


def stage(before: int, after: int) -> nn.Sequential:
    """Two convolutions and a halving."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(after, after, 3, padding=1),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )


class Judges(nn.Module):
    """The three networks; each looks at (B,3,64,64) in [0,1]."""

    def __init__(self) -> None:
        super().__init__()
        self.outline = nn.Sequential(stage(3, 24), nn.Conv2d(24, 48, 5, padding=4, dilation=2), nn.ReLU(),
                                     nn.Conv2d(48, 48, 5, padding=8, dilation=4), nn.ReLU(), nn.Conv2d(48, 1, 1))  # fmt: skip
        self.scene = nn.Sequential(stage(3, 16), stage(16, 32), stage(32, 64), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
                                   nn.Linear(256, len(SCENES)))  # fmt: skip
        self.identity = nn.Sequential(stage(3, 24), stage(24, 48), stage(48, 96), stage(96, 128), nn.Flatten(),
                                      nn.Dropout(0.2), nn.Linear(2048, EMBEDDING))  # fmt: skip

    def people(self, pictures: Tensor) -> Tensor:
        """(B,3,128,128) -> (B,32,32) soft mask of all people."""
        return torch.sigmoid(self.outline(F.avg_pool2d(pictures, SIZE // VIEW)))[:, 0]

    def place(self, pictures: Tensor) -> Tensor:
        """(B,3,128,128) -> (B,) index into SCENES."""
        return self.scene(F.avg_pool2d(pictures, SIZE // VIEW)).argmax(dim=1)

    def embed(self, views: Tensor) -> Tensor:
        """(B,3,64,64) portraits -> (B,EMBEDDING) of length one."""
        return F.normalize(self.identity(views), dim=1)


def load_judges() -> Judges:
    """The judges that come with the recipe."""
    judges = Judges()
    judges.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(FILE).items()})
    return judges.eval().requires_grad_(False)


def portrait(picture: Tensor, mask: Tensor, shift: Tensor | None = None) -> Tensor:
    """Cut the person under a mask out of a picture, from the top of the head to the lower edge.

    Args: picture (3,128,128), mask (32,32), shift (3,) small random offsets of place and size for training.
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


def outline_loss(judges: Judges, shard: Shard, chosen: Tensor, generator: Generator) -> Tensor:
    pictures, masks = pick(shard, chosen)
    seen = judges.outline(F.avg_pool2d(pictures, 2).to(DEVICE))[:, 0]
    return F.binary_cross_entropy_with_logits(seen, masks.sum(dim=1).clamp(max=1).to(DEVICE))


def scene_loss(judges: Judges, shard: Shard, chosen: Tensor, generator: Generator) -> Tensor:
    pictures, _ = pick(shard, chosen)
    truth = torch.from_numpy(shard.records["scene"][chosen.numpy()].astype(np.int64))
    return F.cross_entropy(judges.scene(F.avg_pool2d(pictures, 2).to(DEVICE)), truth.to(DEVICE))


def random_portraits(shard: Shard, chosen: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """One person of each picture: views (B,3,64,64) and identities (B,)."""
    pictures, masks = pick(shard, chosen)
    records = shard.records[chosen.numpy()]
    who = (torch.rand(len(chosen), generator=generator) * torch.from_numpy(records["people"].astype(np.int64))).long()
    shifts = 0.03 * torch.randn(len(chosen), 3, generator=generator)
    views = [portrait(p, m[w], s) for p, m, w, s in zip(pictures, masks, who.tolist(), shifts, strict=True)]
    mirrored = [v.flip(-1) if torch.rand((), generator=generator) < 0.5 else v for v in views]
    return torch.stack(mirrored), torch.from_numpy(records["identity"][range(len(who)), who.tolist()].astype(np.int64))


def roughen(views: Tensor, generator: Generator) -> Tensor:
    """Bent lines, smeared detail, noise and a slight tint for half of the views (B,3,64,64): what a small model makes of faces.

    Without it the identity judge, knowing clean drawings only, would judge how they are drawn and not who they show.
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
    name: str, steps: int, loss: Callable[..., Tensor], parameters: list, judges: Judges, rate: float
) -> None:
    """Plain supervised training, one-cycle AdamW, batches of 64."""
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


def rank1(seen: Tensor, known: Tensor, seen_owners: Tensor, known_owners: Tensor) -> float:
    """How often a person's embedding is nearer to one of another picture of them than to those of 19 others."""
    generator, right = Generator().manual_seed(0), []
    for i in range(len(seen)):
        same = (known_owners == seen_owners[i]).nonzero()[:, 0]
        same = same[same != i]
        others = (known_owners != seen_owners[i]).nonzero()[:, 0]
        if len(same):
            rivals = others[torch.randperm(len(others), generator=generator)[:19]]
            right.append(float(seen[i] @ known[same[0]] > (known[rivals] @ seen[i]).max()))
    return float(np.mean(right))


@torch.no_grad()
def validate(judges: Judges) -> dict[str, float]:
    """How well the judges see, on renders of unseen identities: their ceiling in any evaluation."""
    shard = load("validation")
    pictures, masks = pick(shard, torch.arange(len(shard.records)))
    union = masks.sum(dim=1).clamp(max=1) > 0.5
    seen = judges.people(pictures) > 0.5
    everything, generator = torch.arange(len(pictures)), Generator().manual_seed(1)
    views, owners = random_portraits(shard, everything, generator)
    others, other_owners = random_portraits(shard, everything, generator)
    a, rough, b = (judges.embed(v) for v in (views, roughen(views, generator), others))
    return {
        "outline_iou": ((seen & union).sum() / (seen | union).sum()).item(),
        "scene_accuracy": (judges.place(pictures) == torch.from_numpy(shard.records["scene"].astype(np.int64)))
        .float()
        .mean()
        .item(),
        "identity_rank1_of_20": rank1(a, b, owners, other_owners),
        "identity_rank1_of_20_half_roughened": rank1(rough, b, owners, other_owners),
    }


def main(argv: list[str]) -> None:
    """Train all judges and write `judges.safetensors`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500, help="of the identity judge; the others take a fraction")
    steps = parser.parse_args(argv).steps
    torch.manual_seed(0)
    judges = Judges().to(DEVICE)
    classes = nn.Parameter(torch.randn(len(SPLITS["train"]), EMBEDDING).to(DEVICE))

    def identity_loss(judges: Judges, shard: Shard, chosen: Tensor, generator: Generator) -> Tensor:
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
