"""The people: reads the archive of drawn faces and keeps a cache of their cut-outs.

`faces.jsonl.xz` holds one drawing a line (made by `faces.mjs`). Rasterising them takes minutes, so it is done once,
into `.mini/faces.npy`. Identities, not drawings, are split: no person of the test set is in the training set.
"""

import io
import json
import lzma
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
WORK = ROOT / ".mini"
WEIGHTS = ROOT / "weights" / "mini"
ARCHIVE = Path(__file__).with_name("faces.jsonl.xz")
CACHE = WORK / "faces.npy"
WIDTH, HEIGHT = 96, 144
VARIANTS = 4
"""Drawings of each identity."""
# Identities of each split. They are drawn independently of one another, so the archive's tail is a fair sample.
SPLITS = {"train": range(0, 2500), "validation": range(2500, 2750), "test": range(2750, 3000)}


@dataclass(frozen=True)
class Face:
    """One drawing: its person (`identity`, `attributes`) and what changes from picture to picture (the rest)."""

    identity: int
    variant: int
    noun: str
    expression: str
    clothes: str
    jersey: str
    accessory: str
    glasses: bool
    attributes: dict[str, str]
    svg: str


def read_archive() -> list[Face]:
    """All drawings, in the archive's order: identity by identity, `VARIANTS` of each."""
    with lzma.open(ARCHIVE, "rt", encoding="utf-8") as lines:
        return [Face(**json.loads(line)) for line in lines]


def rasterise(svg: str) -> np.ndarray:
    """`[HEIGHT, WIDTH, 4]` uint8, straight alpha, drawn at twice the size and box-filtered premultiplied."""
    png = resvg_py.svg_to_bytes(svg_string=svg, width=2 * WIDTH)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBa").resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return np.asarray(picture.convert("RGBA"))


def load_cutouts() -> np.ndarray:
    """Memory map `[drawings, HEIGHT, WIDTH, 4]` uint8 of every drawing, made on first use."""
    if not CACHE.is_file():
        WORK.mkdir(exist_ok=True)
        drawings = [face.svg for face in read_archive()]
        part = CACHE.with_suffix(".part.npy")
        cutouts = np.lib.format.open_memmap(part, "w+", np.uint8, (len(drawings), HEIGHT, WIDTH, 4))
        with Pool(2) as pool:
            for index, cutout in enumerate(pool.imap(rasterise, drawings, chunksize=64)):
                cutouts[index] = cutout
        cutouts.flush()
        part.replace(CACHE)
    return np.load(CACHE, mmap_mode="r")


def main(argv: list[str]) -> None:
    """Make the cache."""
    print("cut-outs", load_cutouts().shape)
