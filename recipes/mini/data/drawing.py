"""Shapes that the scenes are drawn from, on canvases of `S x S` pixels."""

import math

import numpy as np
from PIL import Image, ImageDraw

S = 256
"""Twice the side of the final picture."""
Rng = np.random.Generator
Colour = tuple[int, int, int]


def jitter(rng: Rng, colour: Colour, amount: int = 14) -> Colour:
    """The colour with up to `amount` added to or taken from each channel."""
    red, green, blue = np.clip(np.asarray(colour) + rng.integers(-amount, amount + 1, 3), 0, 255)
    return int(red), int(green), int(blue)


def pick_colour(rng: Rng, colours: list[Colour]) -> Colour:
    """One of the colours, jittered."""
    return jitter(rng, colours[rng.integers(len(colours))])


def gradient(top: Colour, bottom: Colour, height: int = S) -> Image.Image:
    """From top to bottom, S wide."""
    rows = np.linspace(top, bottom, height)[:, None, :].repeat(S, axis=1)
    return Image.fromarray(rows.astype(np.uint8))


def canvas(top: Colour, bottom: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A background from top to bottom, and a pen for it."""
    picture = gradient(top, bottom)
    return picture, ImageDraw.Draw(picture)


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def hills(rng: Rng, draw: ImageDraw.ImageDraw, base: float, height: float, colour: Colour) -> None:
    """A wavy skyline around `base`, filled down to the lower edge."""
    x = np.linspace(0, S, 65)
    waves = sum((np.sin(x / S * f * math.tau + rng.uniform(0, math.tau)) / f for f in (1, 2, 3)), np.zeros_like(x))
    draw.polygon([(0, S), *zip(x, base - height * waves, strict=True), (S, S)], fill=colour)


def cloud(
    rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, size: float, colour: Colour = (255, 255, 255)
) -> None:
    for dx in (-1.1, -0.4, 0.4, 1.1):
        disc(draw, x + dx * size, y - (0.35 * size if abs(dx) < 1 else 0), size * rng.uniform(0.6, 0.85), colour)
    draw.rectangle((x - 1.4 * size, y, x + 1.4 * size, y + 0.5 * size), fill=colour)


def pine(draw: ImageDraw.ImageDraw, x: float, foot: float, height: float, colour: Colour) -> None:
    draw.rectangle((x - height * 0.05, foot - height * 0.2, x + height * 0.05, foot), fill=(94, 62, 38))
    for level in range(3):
        top, width = foot - height * (1 - 0.22 * level), height * (0.2 + 0.07 * level)
        draw.polygon([(x, top), (x - width, top + height * 0.42), (x + width, top + height * 0.42)], fill=colour)


def brighter(colour: Colour, amount: int) -> Colour:
    """Each channel plus `amount`, at most 255."""
    red, green, blue = (min(255, channel + amount) for channel in colour)
    return red, green, blue
