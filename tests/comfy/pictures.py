"""Small training folders in both layouts: boxes for people, exact masks, captions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 128
CAPTIONS = [("a man on a beach", (5,)), ("a woman and a man in the snow", (7, 17))]


def scene(number: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """(SIDE,SIDE,3) uint8 and a bool mask for each person."""
    chance = np.random.default_rng(number)
    pixels = np.full((SIDE, SIDE, 3), chance.integers(0, 256, 3), np.uint8)
    masks = []
    for place in range(1 + number % 2):
        left = 10 + 60 * place + int(chance.integers(0, 10))
        mask = np.zeros((SIDE, SIDE), bool)
        mask[40 : 100 + int(chance.integers(0, 20)), left : left + 40] = True
        pixels[mask] = chance.integers(0, 256, 3)
        masks.append(mask)
    return pixels, masks


def kohya(root: Path, count: int = 6, enlarged: int = 1) -> Path:
    """Pictures of `enlarged` times `SIDE`, captions and masks beside each other."""
    root.mkdir(parents=True)
    for number in range(count):
        pixels, masks = scene(number)
        Image.fromarray(larger(pixels, enlarged)).save(root / f"{number:08}.jpg", quality=95)
        (root / f"{number:08}.txt").write_text(CAPTIONS[number % 2][0])
        for i, mask in enumerate(masks, start=1):
            Image.fromarray(larger(mask, enlarged).astype(np.uint8) * 255).save(root / f"{number:08}.mask{i}.png")
    return root


def larger(pixels: np.ndarray, times: int) -> np.ndarray:
    """Every pixel as a square of `times` pixels."""
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def fastcomposer(root: Path, count: int = 6) -> Path:
    """The same pictures in FastComposer's layout of FFHQ."""
    (root / "00000").mkdir(parents=True)
    (root / "image_ids_train.txt").write_text("".join(f"{number:08}\n" for number in range(count)))
    for number in range(count):
        pixels, masks = scene(number)
        path = root / "00000" / f"{number:08}"
        Image.fromarray(pixels).save(path.with_suffix(".jpg"), quality=95)
        np.save(path.with_suffix(".npy"), sum(i * mask.astype(np.int64) for i, mask in enumerate(masks, start=1)))
        caption, ends = CAPTIONS[number % 2]
        segments = [{"id": i, "bbox": [], "coco_label": "person", "end": end} for i, end in enumerate(ends, start=1)]
        path.with_suffix(".json").write_text(json.dumps({"caption": caption, "segments": segments}))
    return root
