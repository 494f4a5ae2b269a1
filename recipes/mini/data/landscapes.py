"""Scenes of open country, as `scenes.py` describes them."""

import math

import numpy as np
from PIL import Image, ImageDraw

from .drawing import Rng, S, canvas, cloud, disc, hills, jitter, pick_colour, pine


def palm(rng: Rng, draw: ImageDraw.ImageDraw, x: float, foot: float, side: int) -> None:
    """A palm that leans towards the middle of the picture."""
    crown = (x - side * 14, rng.uniform(48, 80))
    draw.line([(x, foot), (x - side * 2, foot - 60), crown], fill=jitter(rng, (130, 88, 50)), width=11, joint="curve")
    green = jitter(rng, (38, 140, 60))
    for angle in np.linspace(0.05, 0.95, 6) * -math.pi:
        tip = (crown[0] + 50 * math.cos(angle), crown[1] + 26 * math.sin(angle) + 20)
        middle = (crown[0] + 26 * math.cos(angle), crown[1] + 30 * math.sin(angle) - 8)
        draw.polygon([crown, middle, tip, (middle[0], middle[1] + 14)], fill=green)


def parasol(rng: Rng, draw: ImageDraw.ImageDraw, x: float, foot: float) -> None:
    """A striped parasol on its pole."""
    top, radius = rng.uniform(80, 105), 44
    draw.line([(x, top), (x, foot)], fill=(240, 240, 240), width=5)
    first, second = pick_colour(rng, [(225, 60, 60), (40, 110, 200), (245, 140, 30)]), (252, 252, 252)
    for stripe in range(6):
        draw.pieslice(
            (x - radius, top - 30, x + radius, top + 58),
            180 + 30 * stripe,
            210 + 30 * stripe,
            fill=(first, second)[stripe % 2],
        )


def beach(rng: Rng) -> Image.Image:
    """Blue sky, a band of sea, sand, a palm or a parasol."""
    picture, draw = canvas(jitter(rng, (80, 175, 240)), jitter(rng, (205, 238, 252)))
    sea, sand = rng.uniform(105, 130), rng.uniform(158, 182)
    disc(draw, rng.uniform(30, 226), rng.uniform(22, 50), rng.uniform(14, 20), (255, 236, 120))
    for _ in range(rng.integers(1, 4)):
        cloud(rng, draw, rng.uniform(10, 246), rng.uniform(20, 80), rng.uniform(8, 14))
    draw.rectangle((0, sea, S, S), fill=jitter(rng, (25, 140, 190)))
    draw.rectangle((0, sea + 20, S, S), fill=jitter(rng, (45, 180, 205)))
    if rng.random() < 0.5:
        x = rng.uniform(30, 226)
        draw.polygon([(x, sea - 32), (x + 18, sea - 4), (x, sea - 4)], fill=(255, 255, 255))
        draw.polygon(
            [(x - 12, sea - 2), (x + 20, sea - 2), (x + 12, sea + 6), (x - 6, sea + 6)],
            fill=jitter(rng, (200, 60, 50)),
        )
    draw.rectangle((0, sand - 5, S, sand), fill=(235, 250, 250))
    draw.rectangle((0, sand, S, S), fill=jitter(rng, (240, 215, 150)))
    side = rng.choice((-1, 1))
    x, foot = S / 2 + side * rng.uniform(92, 112), rng.uniform(190, 220)
    if rng.random() < 0.6:
        palm(rng, draw, x, foot, side)
    else:
        parasol(rng, draw, x, foot)
    return picture


def sunset(rng: Rng) -> Image.Image:
    """A low orange sun with rays of haze, dark hills or its glitter on water."""
    picture, draw = canvas(pick_colour(rng, [(95, 45, 120), (140, 40, 90), (70, 40, 110)]), jitter(rng, (255, 175, 70)))
    x, y, radius = rng.uniform(60, 196), rng.uniform(90, 130), rng.uniform(30, 42)
    for halo, colour in ((1.8, (250, 140, 80)), (1.4, (253, 165, 85))):
        disc(draw, x, y, radius * halo, colour)
    disc(draw, x, y, radius, jitter(rng, (255, 225, 110)))
    for _ in range(rng.integers(2, 5)):
        cx, cy, width = rng.uniform(0, S), rng.uniform(25, 120), rng.uniform(30, 70)
        draw.rounded_rectangle((cx - width, cy, cx + width, cy + 7), 4, fill=jitter(rng, (225, 95, 95)))
    horizon = rng.uniform(140, 160)
    if rng.random() < 0.5:
        draw.rectangle((0, horizon, S, S), fill=jitter(rng, (120, 55, 105)))
        for row in range(6):
            width = radius * rng.uniform(0.5, 1.2)
            draw.rounded_rectangle(
                (x - width, horizon + 5 + 12 * row, x + width, horizon + 10 + 12 * row), 2, fill=(255, 185, 95)
            )
    else:
        hills(rng, draw, horizon - 5, 8, jitter(rng, (125, 50, 85)))
        hills(rng, draw, horizon + 22, 10, jitter(rng, (75, 30, 65)))
    return picture


def snow(rng: Rng) -> Image.Image:
    """Pale sky, white hills, snow-covered pines, falling flakes."""
    picture, draw = canvas(
        pick_colour(rng, [(150, 185, 215), (165, 180, 205), (125, 175, 220)]), jitter(rng, (228, 238, 246), 8)
    )
    if rng.random() < 0.6:
        for peak in rng.uniform(20, 236, 3):
            top, width = rng.uniform(40, 75), rng.uniform(60, 85)
            draw.polygon([(peak, top), (peak - width, 165), (peak + width, 165)], fill=jitter(rng, (120, 145, 175)))
            draw.polygon(
                [(peak, top), (peak - width * 0.35, top + 42), (peak, top + 30), (peak + width * 0.35, top + 42)],
                fill=(250, 252, 255),
            )
    hills(rng, draw, 150, 8, jitter(rng, (222, 233, 243), 6))
    for x in rng.permutation(np.linspace(12, 244, 7))[: rng.integers(3, 6)]:
        height, foot = rng.uniform(70, 105), rng.uniform(160, 185)
        pine(draw, x, foot, height, jitter(rng, (50, 95, 85)))
        draw.polygon(
            [(x, foot - height), (x - height * 0.12, foot - height * 0.75), (x + height * 0.12, foot - height * 0.75)],
            fill=(250, 252, 255),
        )
    hills(rng, draw, 190, 6, (248, 251, 255))
    for x, y in rng.uniform(0, S, (rng.integers(50, 90), 2)):
        disc(draw, x, y, rng.uniform(1.5, 3.2), (255, 255, 255))
    return picture


def forest(rng: Rng) -> Image.Image:
    """Trunks and crowns, deep green, light between the trees."""
    picture, draw = canvas(
        pick_colour(rng, [(190, 225, 150), (165, 215, 165), (215, 228, 140)]), jitter(rng, (90, 150, 80))
    )
    for depth, shade in enumerate(((70, 130, 75), (38, 98, 55))):
        for x in np.linspace(-5, S + 5, 6) + rng.uniform(-18, 18, 6):
            width, bark = rng.uniform(5, 8) + 4 * depth, jitter(rng, ((118, 88, 60), (88, 60, 38))[depth])
            draw.rectangle((x - width, 20, x + width, S), fill=bark)
        for x in np.linspace(0, S, 9) + rng.uniform(-14, 14, 9):
            disc(draw, x, rng.uniform(0, 52) - 26 * depth, rng.uniform(26, 40), jitter(rng, shade))
    hills(rng, draw, 188, 5, jitter(rng, (62, 125, 52)))
    for x in rng.uniform(0, S, 22):
        foot = rng.uniform(178, 215)
        draw.polygon([(x, foot - rng.uniform(14, 26)), (x - 5, foot), (x + 5, foot)], fill=jitter(rng, (45, 110, 48)))
    for _ in range(rng.integers(0, 4)):
        x, foot = rng.uniform(10, 246), rng.uniform(185, 205)
        draw.rectangle((x - 3, foot - 10, x + 3, foot), fill=(245, 235, 215))
        draw.pieslice((x - 10, foot - 22, x + 10, foot), 180, 360, fill=(215, 50, 45))
    return picture


def desert(rng: Rng) -> Image.Image:
    """Dunes, a hot sky, cacti, perhaps a mesa."""
    picture, draw = canvas(
        pick_colour(rng, [(90, 185, 225), (245, 195, 130), (120, 200, 215)]), jitter(rng, (253, 232, 190), 8)
    )
    disc(draw, rng.uniform(30, 226), rng.uniform(25, 55), rng.uniform(16, 22), (255, 250, 200))
    if rng.random() < 0.6:
        x, top, width = rng.uniform(40, 216), rng.uniform(85, 110), rng.uniform(28, 46)
        draw.polygon(
            [(x - width, top), (x + width, top), (x + width * 1.5, 175), (x - width * 1.5, 175)],
            fill=jitter(rng, (195, 95, 60)),
        )
        draw.rectangle((x - width * 1.12, top + 16, x + width * 1.12, top + 24), fill=jitter(rng, (225, 130, 85)))
    hills(rng, draw, 150, 8, jitter(rng, (236, 176, 98)))
    hills(rng, draw, 178, 9, jitter(rng, (222, 152, 74)))
    sides = rng.permutation([-1, 1])[: rng.integers(1, 3)]
    for x in S / 2 + sides * rng.uniform(78, 112, len(sides)):
        green, foot, height = jitter(rng, (58, 130, 72)), rng.uniform(180, 205), rng.uniform(90, 120)
        draw.rounded_rectangle((x - 9, foot - height, x + 9, foot), 9, fill=green)
        for side in (-1, 1):
            elbow = foot - height * rng.uniform(0.35, 0.6)
            outer = x + side * 24
            draw.rounded_rectangle((min(x, outer) - 5, elbow - 6, max(x, outer) + 5, elbow + 6), 6, fill=green)
            draw.rounded_rectangle((outer - 6, elbow - 32, outer + 6, elbow + 6), 6, fill=green)
    return picture
