"""The scenes: ten of them, each a function from a random generator to a picture.

Everything that may vary without changing the scene's name does: colours, positions, the number of things. Scenes are
drawn at twice the size of the final picture, and box-filtered by the caller together with the people. People mostly cover
the bottom third, so what identifies a scene stands above it.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .drawing import Rng, S, brighter, canvas, disc, gradient, hills, jitter, pick_colour
from .landscapes import beach, desert, forest, snow, sunset


def city(rng: Rng) -> Image.Image:
    """Night, towers with lit windows, perhaps a moon."""
    picture, draw = canvas(
        jitter(rng, (10, 14, 45), 8), pick_colour(rng, [(62, 48, 110), (40, 60, 115), (85, 50, 100)])
    )
    for x, y in rng.uniform((0, 0), (S, 110), (25, 2)):
        disc(draw, x, y, rng.uniform(0.8, 1.6), (255, 255, 230))
    if rng.random() < 0.6:
        x, y = rng.uniform(30, 226), rng.uniform(22, 45)
        disc(draw, x, y, 14, (250, 245, 210))
    for depth, (low, high) in enumerate(((45, 110), (80, 150))):
        x = -rng.uniform(0, 25)
        while x < S:
            width, top = rng.uniform(28, 48), rng.uniform(low, high)
            wall = jitter(rng, ((44, 46, 88), (24, 26, 54))[depth], 7)
            draw.rectangle((x, top, x + width, S), fill=wall)
            for wy in np.arange(top + 8, S, 15):
                for wx in np.arange(x + 6, x + width - 8, 11):
                    if rng.random() < 0.55:
                        draw.rectangle(
                            (wx, wy, wx + 5, wy + 7), fill=pick_colour(rng, [(255, 214, 95), (255, 236, 160)])
                        )
            x += width + rng.uniform(0, 5)
    return picture


def underwater(rng: Rng) -> Image.Image:
    """Blue depth with light shafts, fish, bubbles, sea weed."""
    picture, draw = canvas(
        pick_colour(rng, [(60, 190, 225), (50, 170, 215), (70, 205, 210)]),
        pick_colour(rng, [(8, 50, 125), (5, 70, 115)]),
    )
    shafts = Image.new("L", (S, S))
    for x in rng.uniform(0, S, 4):
        lean, width = rng.uniform(-50, 50), rng.uniform(8, 20)
        ImageDraw.Draw(shafts).polygon(
            [(x - width, 0), (x + width, 0), (x + lean + 2 * width, 190), (x + lean - 2 * width, 190)], fill=38
        )
    picture.paste((225, 250, 255), (0, 0), shafts)
    for x in rng.uniform(0, S, rng.integers(4, 8)):
        foot, sway, green = S, rng.uniform(5, 10), jitter(rng, (40, 150, 90))
        y = np.linspace(foot, rng.uniform(95, 160), 24)
        draw.line(list(zip(x + sway * np.sin(y / 13), y, strict=True)), fill=green, width=9, joint="curve")
    for _ in range(rng.integers(3, 6)):
        x, y, size, side = rng.uniform(20, 236), rng.uniform(20, 130), rng.uniform(11, 18), rng.choice((-1, 1))
        colour = pick_colour(rng, [(255, 140, 30), (255, 215, 60), (240, 85, 110), (190, 110, 230)])
        draw.polygon(
            [(x - side * size, y), (x - side * size * 2, y - size * 0.7), (x - side * size * 2, y + size * 0.7)],
            fill=colour,
        )
        draw.ellipse((x - size * 1.3, y - size * 0.75, x + size * 1.3, y + size * 0.75), fill=colour)
        disc(draw, x + side * size * 0.7, y - 2, 3, (255, 255, 255))
        disc(draw, x + side * size * 0.75, y - 2, 1.5, (10, 10, 30))
    for x, y in rng.uniform((0, 10), (S, 190), (rng.integers(8, 18), 2)):
        radius = rng.uniform(2.5, 6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(205, 242, 252), width=2)
    return picture


def space(rng: Rng) -> Image.Image:
    """Black sky, stars, a planet with a ring or with bands, a small moon."""
    picture, draw = canvas(jitter(rng, (12, 8, 35), 7), pick_colour(rng, [(45, 18, 75), (18, 28, 70), (10, 10, 30)]))
    for x, y in rng.uniform(0, S, (rng.integers(60, 100), 2)):
        disc(draw, x, y, rng.uniform(0.8, 2.0), pick_colour(rng, [(255, 255, 255), (255, 240, 200), (200, 220, 255)]))
    x, y, radius = rng.choice((55, 128, 200)) + rng.uniform(-20, 20), rng.uniform(40, 70), rng.uniform(26, 38)
    body = pick_colour(rng, [(230, 150, 80), (90, 150, 230), (220, 100, 110), (120, 200, 170), (180, 120, 220)])
    ring = brighter(body, 70)
    box = (x - radius * 1.9, y - radius * 0.5, x + radius * 1.9, y + radius * 0.5)
    has_ring = rng.random() < 0.7
    if has_ring:
        draw.arc(box, 170, 370, fill=ring, width=7)
    disc(draw, x, y, radius, body)
    disc(draw, x - radius * 0.3, y - radius * 0.3, radius * 0.5, brighter(body, 28))
    if has_ring:
        draw.arc(box, -5, 185, fill=ring, width=7)
    moon = (S - x + rng.uniform(-15, 15), rng.uniform(95, 135), rng.uniform(9, 14))
    disc(draw, *moon, (205, 205, 212))
    disc(draw, moon[0] - 3, moon[1] + 2, 3, (165, 165, 175))
    if rng.random() < 0.5:
        hills(rng, draw, 200, 5, jitter(rng, (120, 118, 128)))
    return picture


def room(rng: Rng) -> Image.Image:
    """A papered wall, a window or a framed picture, a lamp, a floor."""
    wall = pick_colour(rng, [(235, 205, 175), (190, 210, 195), (215, 190, 205), (240, 222, 160), (180, 200, 220)])
    picture, draw = canvas(wall, brighter(wall, -12))
    for x in np.arange(rng.uniform(0, 16), S, rng.uniform(20, 30)):
        draw.rectangle((x, 0, x + 5, S), fill=brighter(wall, -10))
    draw.rectangle((0, 198, S, 205), fill=(245, 240, 232))
    draw.rectangle((0, 205, S, S), fill=jitter(rng, (150, 105, 70)))
    sides = rng.permutation([66, 190])
    x, top = sides[0] + rng.uniform(-12, 12), rng.uniform(24, 38)
    draw.rectangle((x - 42, top - 5, x + 42, top + 85), fill=jitter(rng, (250, 246, 238), 5))
    picture.paste(
        gradient(jitter(rng, (110, 190, 240)), (225, 242, 250), 80).crop((0, 0, 74, 80)), (int(x - 37), int(top))
    )
    draw.rectangle((x - 37, top + 58, x + 36, top + 79), fill=jitter(rng, (105, 175, 90)))
    draw.rectangle((x - 2, top, x + 2, top + 80), fill=(250, 246, 238))
    draw.rectangle((x - 37, top + 38, x + 37, top + 42), fill=(250, 246, 238))
    curtain = pick_colour(rng, [(200, 70, 70), (70, 110, 170), (90, 150, 110), (150, 90, 150)])
    for side in (-1, 1):
        draw.polygon(
            [(x + side * 52, top - 8), (x + side * 20, top - 8), (x + side * 40, top + 92), (x + side * 52, top + 92)],
            fill=curtain,
        )
    x = sides[1] + rng.uniform(-10, 10)
    if rng.random() < 0.5:
        draw.line([(x, 0), (x, 42)], fill=(70, 60, 55), width=4)
        draw.polygon([(x - 14, 40), (x + 14, 40), (x + 32, 78), (x - 32, 78)], fill=jitter(rng, (255, 205, 90)))
        disc(draw, x, 80, 8, (255, 250, 215))
    else:
        y = rng.uniform(38, 52)
        draw.rectangle((x - 32, y - 5, x + 32, y + 50), fill=jitter(rng, (120, 80, 45)))
        draw.rectangle((x - 26, y, x + 26, y + 44), fill=jitter(rng, (250, 240, 215)))
        disc(
            draw,
            x + rng.uniform(-10, 10),
            y + 20,
            13,
            pick_colour(rng, [(225, 95, 70), (70, 130, 180), (235, 175, 60)]),
        )
    return picture


def theatre(rng: Rng) -> Image.Image:
    """Red curtains to both sides, spotlights, a wooden floor."""
    picture, draw = canvas(jitter(rng, (48, 18, 40), 8), jitter(rng, (88, 34, 52), 8))
    draw.polygon([(0, S), (0, 200), (S, 200), (S, S)], fill=jitter(rng, (165, 108, 62)))
    light = pick_colour(rng, [(255, 240, 170), (190, 225, 255), (255, 200, 225)])
    beams = Image.new("L", (S, S))
    for x in np.linspace(70, 186, 3) + rng.uniform(-12, 12, 3):
        lean = rng.uniform(-40, 40)
        beam = Image.new("L", (S, S))
        ImageDraw.Draw(beam).polygon([(x - 7, 14), (x + 7, 14), (x + lean + 42, 210), (x + lean - 42, 210)], fill=95)
        beams = Image.fromarray(np.minimum(np.asarray(beams, np.uint16) + np.asarray(beam), 200).astype(np.uint8))
        picture.paste(light, (0, 0), beam)
        draw.rectangle((x - 10, 6, x + 10, 20), fill=(25, 22, 28))
    red = pick_colour(rng, [(200, 30, 45), (170, 25, 60), (215, 45, 35)])
    dark = tuple(int(c * 0.72) for c in red)
    width = rng.uniform(42, 58)
    for side in (0, 1):
        for fold in range(5):
            x = fold * width / 5
            box = (x, 0, x + width / 5 + 1, 215) if side == 0 else (S - x - width / 5 - 1, 0, S - x, 215)
            draw.rectangle(box, fill=(red, dark)[fold % 2])
    for x in np.arange(0, S, 32):
        draw.pieslice((x - 2, -26, x + 34, 30), 0, 180, fill=(red, dark)[int(x // 32) % 2])
    return picture


SCENES: dict[str, Callable[[Rng], Image.Image]] = {
    "on a beach": beach,
    "at sunset": sunset,
    "in a city at night": city,
    "in the snow": snow,
    "in a forest": forest,
    "in a desert": desert,
    "under water": underwater,
    "in space": space,
    "in a room": room,
    "on a stage": theatre,
}
"""Scenes by the words that name them in a caption."""
