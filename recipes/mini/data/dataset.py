"""The pictures: one or two people in a place, with a caption and each person's mask.

A picture is a pure function of `(split, index)`, so a data set is a number, not a download: `compose` draws one, and
`main` draws all of them once, into arrays in `.mini/`, because drawing costs more than training on the result.

A caption names how many men and women there are, from left to right, and the place; never who they are, what they wear
or how they look. A reference image gives those.
"""

from dataclasses import dataclass
from functools import cache
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

from .faces import HEIGHT, SPLITS, VARIANTS, WIDTH, WORK, load_cutouts, read_archive
from .scenes import SCENES, S

SIZE = 128
MASK_SIZE = 32
COUNTS = {"train": 100_000, "validation": 500, "test": 500}
SEEDS = {"train": 1, "validation": 2, "test": 3}
RECORD = np.dtype(
    [
        ("caption", "U64"),
        ("scene", "i2"),  # index into SCENES
        ("people", "i1"),  # 1 or 2
        ("drawing", "i4", 2),  # row of `load_cutouts()` and of `read_archive()`, left to right; -1: none
        ("identity", "i4", 2),  # drawing // VARIANTS; -1: none
    ]
)


@dataclass(frozen=True)
class Picture:
    """`image` `[128, 128, 3]` uint8, `masks` `[2, 128, 128]` uint8 (visible part, 255 = fully), `record` a `RECORD`."""

    image: np.ndarray
    masks: np.ndarray
    record: np.void


@dataclass(frozen=True)
class Shard:
    """A whole split, memory-mapped: `images` `[N, 128, 128, 3]`, `masks` `[N, 2, 32, 32]` uint8, `records` `[N]`."""

    images: np.ndarray
    masks: np.ndarray
    records: np.ndarray


def caption(nouns: list[str], place: str, rng: np.random.Generator) -> str:
    """ "a photo of a man and a woman on a beach": the introduction comes and goes, and rarely the place does."""
    people = " and ".join(f"a {noun}" for noun in nouns)
    start = rng.choice(["", "", "a photo of ", "a picture of "])
    return start + people + (f" {place}" if rng.random() < 0.95 else "")


def place_person(cutout: np.ndarray, x: float, height: float, angle: float, mirror: bool) -> Image.Image:
    """The cut-out on an empty `S x S` canvas: `x` its middle, `height` that of the whole drawing, feet out of sight."""
    scale, sine, cosine = HEIGHT / height, np.sin(angle), np.cos(angle)
    across = -scale if mirror else scale
    foot = S + 0.09 * height  # below the edge, so that turning never shows where the drawing ends
    matrix = (
        across * cosine, across * sine, WIDTH / 2 - across * (cosine * x + sine * foot),
        -scale * sine, scale * cosine, HEIGHT + scale * (sine * x - cosine * foot),
    )  # fmt: skip
    return Image.fromarray(cutout).transform((S, S), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def _poses(people: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Middle and height (pixels of the double-size canvas) of each person, left to right."""
    if people == 1:
        return [(rng.uniform(0.3, 0.7) * S, rng.uniform(0.88, 1.08) * S)]
    gap = rng.uniform(0.46, 0.54) * S
    left = S / 2 - gap / 2 + rng.uniform(-0.03, 0.03) * S
    return [(x, rng.uniform(0.76, 0.9) * S) for x in (left, left + gap)]


def paint(cutouts: list[np.ndarray], place: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """People, left to right, in scene number `place`: image `[128, 128, 3]` and masks `[2, 128, 128]`, uint8."""
    canvas = list(SCENES.values())[place](rng)
    masks = np.zeros((2, S, S), np.float32)
    for person, (x, height) in enumerate(_poses(len(cutouts), rng)):
        layer = place_person(cutouts[person], x, height, rng.normal(0, 0.04), bool(rng.random() < 0.5))
        canvas.paste(layer, (0, 0), layer)
        alpha = np.asarray(layer)[..., 3] / np.float32(255)
        masks *= 1 - alpha  # who stands in front hides who stands behind
        masks[person] = alpha
    small = masks.reshape(2, SIZE, S // SIZE, SIZE, S // SIZE).mean((2, 4))
    image = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX))
    return image, np.rint(small * 255).astype(np.uint8)


def compose(split: str, index: int) -> Picture:
    """Draw picture `index` of a split."""
    rng = np.random.default_rng((SEEDS[split], index))
    people = 1 if rng.random() < 0.45 else 2
    chosen = SPLITS[split]
    identity = rng.choice(np.arange(chosen.start, chosen.stop), people, replace=False)
    drawing = identity * VARIANTS + rng.integers(VARIANTS, size=people)
    place = int(rng.integers(len(SCENES)))
    image, masks = paint([_cutouts()[d] for d in drawing], place, rng)
    record = np.zeros(1, RECORD)[0]
    nouns = [_nouns()[d] for d in drawing]
    record["caption"] = caption(nouns, list(SCENES)[place], rng)
    record["scene"], record["people"] = place, people
    record["drawing"], record["identity"] = -1, -1
    record["drawing"][:people], record["identity"][:people] = drawing, identity
    return Picture(image, masks, record)


@cache
def _cutouts() -> np.ndarray:
    return load_cutouts()


@cache
def _nouns() -> list[str]:
    return [face.noun for face in read_archive()]


def _path(split: str, name: str) -> Path:
    return WORK / f"{split}_{name}.npy"


def _compose_task(task: tuple[str, int]) -> Picture:
    return compose(*task)


def build(split: str) -> None:
    """Draw a whole split into `.mini/<split>_{images,masks,records}.npy`."""
    count, fold = COUNTS[split], SIZE // MASK_SIZE
    part = _path(split, "images").with_suffix(".part.npy")
    images = np.lib.format.open_memmap(part, "w+", np.uint8, (count, SIZE, SIZE, 3))
    masks = np.zeros((count, 2, MASK_SIZE, MASK_SIZE), np.uint8)
    records = np.zeros(count, RECORD)
    compose(split, 0)  # fills the caches before the fork, so that both processes share them
    with Pool(2) as pool:
        for index, picture in enumerate(pool.imap(_compose_task, ((split, i) for i in range(count)), chunksize=50)):
            images[index] = picture.image
            masks[index] = picture.masks.reshape(2, MASK_SIZE, fold, MASK_SIZE, fold).mean((2, 4)).round()
            records[index] = picture.record
    images.flush()
    np.save(_path(split, "masks"), masks)
    np.save(_path(split, "records"), records)
    part.replace(_path(split, "images"))


def load(split: str) -> Shard:
    """The arrays of one split; `build` must have run."""
    return Shard(
        np.load(_path(split, "images"), mmap_mode="r"), np.load(_path(split, "masks")), np.load(_path(split, "records"))
    )


def split_sheet(split: str, path: Path, columns: int = 10, rows: int = 6) -> None:
    """A page of the split's first pictures, to be looked at before anything is trained."""
    sheet = Image.new("RGB", (columns * SIZE, rows * SIZE))
    for i in range(columns * rows):
        sheet.paste(Image.fromarray(compose(split, i).image), (i % columns * SIZE, i // columns * SIZE))
    sheet.save(path)


def main(argv: list[str]) -> None:
    """Draw every split, or those named."""
    for split in argv or COUNTS:
        split_sheet(split, WORK / f"{split}_sheet.png")
        build(split)
        print(split, load(split).images.shape, flush=True)
