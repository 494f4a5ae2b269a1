"""What the frozen models make of the pictures, computed once and kept in safetensors shards.

A shard holds a few dozen pictures, chosen by a hash of their names, and is named by everything it depends on: adding a
picture, or changing one, makes only its own shard anew, and a run that was killed goes on with the shard it was at.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ...files import write_tensors
from ..lots import generator_for
from .augment import Strength, augment, cut_out
from .encoders import Encoders
from .framing import Shape, buckets, frame, nearest
from .pictures import BadPicture, Picture, Reading, read_image, read_masks, report

SHARD = 32
"""Pictures in a shard, on average."""
VERSION = 1
Progress = Callable[[int, int], None]
"""`(done, all)`, in pictures."""


@dataclass(frozen=True)
class CacheSettings:
    """Whatever else decides what is cached."""

    side: int
    """Pictures get about side² pixels."""
    views: int
    """Augmented references of each subject, for a frozen image encoder; 0: the adapter looks at pictures itself."""
    augmentation: Strength


@dataclass(frozen=True)
class Entry:
    """A cached picture."""

    file: Path
    row: int
    shape: Shape
    """Of the framed picture, in pixels."""


@dataclass(frozen=True)
class Cached:
    """The cache of a set of pictures."""

    entries: list[Entry]
    dropped: list[tuple[Path, str]]
    """Files left out, when reading or when encoding, and why."""

    def report(self) -> str:
        """For a person."""
        return report(len(self.entries), self.dropped)


def build_cache(
    reading: Reading, encoders: Encoders, settings: CacheSettings, folder: Path, progress: Progress
) -> Cached:
    """Compute what is missing and list what there is. Pictures that cannot be used are dropped, with the reason.

    Raises: ValueError when nothing is left, OSError when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cached, done = Cached([], list(reading.dropped)), 0
    for members in shards(reading.pictures):
        path = folder / f"{shard_key(members, encoders, settings)}.safetensors"
        if not path.is_file():
            make_shard(members, encoders, settings, path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        shapes = json.loads(metadata["shapes"])
        cached.entries.extend(Entry(path, row, (h, w)) for row, (h, w) in enumerate(shapes))
        cached.dropped.extend((Path(p), reason) for p, reason in json.loads(metadata["dropped"]))
        done += len(members)
        progress(done, len(reading.pictures))
    if not cached.entries:
        raise ValueError(f"Nothing to train on. {cached.report()}")
    return cached


def shards(pictures: Sequence[Picture]) -> Iterator[list[Picture]]:
    """The pictures in groups that hardly change when pictures come and go."""
    count = 1
    while count * SHARD < len(pictures):
        count *= 2
    groups: list[list[Picture]] = [[] for _ in range(count)]
    for picture in pictures:
        digest = hashlib.blake2b(picture.path.name.encode(), digest_size=4).digest()
        groups[int.from_bytes(digest, "big") % count].append(picture)
    return (group for group in groups if group)


def shard_key(members: Sequence[Picture], encoders: Encoders, settings: CacheSettings) -> str:
    """A name for everything a shard depends on."""
    files = []
    for picture in members:
        subjects = picture.subjects
        used = [picture.path, *(s.mask.path for s in subjects), *(r for s in subjects for r in s.references)]
        stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) if p.exists() else (p.name, 0, 0) for p in used]
        files.append((picture.caption, [s.end for s in subjects], stats))
    content = json.dumps([VERSION, encoders.fingerprint, vars(settings), files])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def make_shard(members: Sequence[Picture], encoders: Encoders, settings: CacheSettings, path: Path) -> None:
    """Encode these pictures and write them, and why some were dropped."""
    tensors: dict[str, Tensor] = {}
    shapes: list[Shape] = []
    dropped: list[tuple[str, str]] = []
    for picture in members:
        try:
            content, shape = encode(picture, encoders, settings)
        except BadPicture as reason:
            dropped.append((str(picture.path), str(reason)))
            continue
        tensors |= {f"{len(shapes)}.{name}": tensor for name, tensor in content.items()}
        shapes.append(shape)
    write_tensors(tensors, path, {"shapes": json.dumps(shapes), "dropped": json.dumps(dropped)})


def encode(picture: Picture, encoders: Encoders, settings: CacheSettings) -> tuple[dict[str, Tensor], Shape]:
    """All that training needs of one picture, and its shape in pixels.

    Raises: BadPicture.
    """
    image = read_image(picture.path)[:3].float() / 255
    size = (image.shape[-2], image.shape[-1])
    masks = read_masks(picture, size)
    shape = nearest(size, buckets(settings.side))
    framed, framed_masks = frame(image, masks, shape)
    grid = (shape[0] // encoders.scale, shape[1] // encoders.scale)
    small = torch.nn.functional.interpolate(framed_masks[None], size=grid, mode="area")[0]
    text = encoders.text(picture.caption, [s.end for s in picture.subjects])
    content = {
        "latents": encoders.latents(framed[None])[0].half(),
        "masks": (small * 255).round().byte(),
        "context": text.context.half(),
        "pooled": text.pooled.half(),
        "places": torch.tensor(text.places),
    }
    for number, subject in enumerate(picture.subjects):
        seen = [read_reference(path) for path in subject.references] or [(image, masks[number])]
        cutouts = torch.stack([cut_out(*pair, 2 * encoders.side) for pair in seen])
        if settings.views:
            content[f"features.{number}"] = look(cutouts, encoders, settings, (picture.path.name, number)).half()
        else:
            content[f"cutouts.{number}"] = (cutouts * 255).round().byte()
    return content, shape


def look(cutouts: Tensor, encoders: Encoders, settings: CacheSettings, seed: tuple[str, int]) -> Tensor:
    """Features of augmented views: (K,4,k,k) -> (V,F)."""
    generator = generator_for("views", *seed)
    views = [
        augment(cutouts[v % len(cutouts)], encoders.side, settings.augmentation, generator)
        for v in range(settings.views)
    ]
    return encoders.features(torch.stack(views))


def read_reference(path: Path) -> tuple[Tensor, Tensor]:
    """A picture of its own that shows one subject, and its transparency as mask: (3,H,W), (H,W).

    Raises: BadPicture.
    """
    pixels = read_image(path).float() / 255
    return pixels[:3], pixels[3] if len(pixels) == 4 else torch.ones(pixels.shape[1:])
