"""The places: ten drawn scenes, each a function from a random generator to a picture.

Everything that may vary without changing the scene's name does: colours, positions, the number of things. Scenes are
drawn on `S x S` pixels, twice the size of the final picture, and box-filtered by the caller together with the people.
The bottom third is mostly covered by people, so what names a scene stands above it.
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

S = 256
Rng = np.random.Generator
Colour = tuple[int, int, int]


def _jitter(rng: Rng, colour: Colour, amount: int = 14) -> Colour:
    red, green, blue = np.clip(np.asarray(colour) + rng.integers(-amount, amount + 1, 3), 0, 255)
    return int(red), int(green), int(blue)


def _choose(rng: Rng, colours: list[Colour]) -> Colour:
    return _jitter(rng, colours[rng.integers(len(colours))])


def _gradient(top: Colour, bottom: Colour, height: int = S) -> Image.Image:
    rows = np.linspace(top, bottom, height)[:, None, :].repeat(S, axis=1)
    return Image.fromarray(rows.astype(np.uint8))


def _canvas(top: Colour, bottom: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = _gradient(top, bottom)
    return picture, ImageDraw.Draw(picture)


def _disc(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _hills(rng: Rng, draw: ImageDraw.ImageDraw, base: float, height: float, colour: Colour) -> None:
    x = np.linspace(0, S, 65)
    waves = sum(np.sin(x / S * f * math.tau + rng.uniform(0, math.tau)) / f for f in (1, 2, 3))
    draw.polygon([(0, S), *zip(x, base - height * waves, strict=True), (S, S)], fill=colour)


def _cloud(
    rng: Rng, draw: ImageDraw.ImageDraw, x: float, y: float, size: float, colour: Colour = (255, 255, 255)
) -> None:
    for dx in (-1.1, -0.4, 0.4, 1.1):
        _disc(draw, x + dx * size, y - (0.35 * size if abs(dx) < 1 else 0), size * rng.uniform(0.6, 0.85), colour)
    draw.rectangle((x - 1.4 * size, y, x + 1.4 * size, y + 0.5 * size), fill=colour)


def _pine(draw: ImageDraw.ImageDraw, x: float, foot: float, height: float, colour: Colour) -> None:
    draw.rectangle((x - height * 0.05, foot - height * 0.2, x + height * 0.05, foot), fill=(94, 62, 38))
    for level in range(3):
        top, width = foot - height * (1 - 0.22 * level), height * (0.2 + 0.07 * level)
        draw.polygon([(x, top), (x - width, top + height * 0.42), (x + width, top + height * 0.42)], fill=colour)


def beach(rng: Rng) -> Image.Image:
    """Blue sky, a band of sea, sand, a palm or a parasol."""
    picture, draw = _canvas(_jitter(rng, (80, 175, 240)), _jitter(rng, (205, 238, 252)))
    sea, sand = rng.uniform(105, 130), rng.uniform(158, 182)
    _disc(draw, rng.uniform(30, 226), rng.uniform(22, 50), rng.uniform(14, 20), (255, 236, 120))
    for _ in range(rng.integers(1, 4)):
        _cloud(rng, draw, rng.uniform(10, 246), rng.uniform(20, 80), rng.uniform(8, 14))
    draw.rectangle((0, sea, S, S), fill=_jitter(rng, (25, 140, 190)))
    draw.rectangle((0, sea + 20, S, S), fill=_jitter(rng, (45, 180, 205)))
    if rng.random() < 0.5:
        x = rng.uniform(30, 226)
        draw.polygon([(x, sea - 32), (x + 18, sea - 4), (x, sea - 4)], fill=(255, 255, 255))
        draw.polygon(
            [(x - 12, sea - 2), (x + 20, sea - 2), (x + 12, sea + 6), (x - 6, sea + 6)],
            fill=_jitter(rng, (200, 60, 50)),
        )
    draw.rectangle((0, sand - 5, S, sand), fill=(235, 250, 250))
    draw.rectangle((0, sand, S, S), fill=_jitter(rng, (240, 215, 150)))
    side = rng.choice((-1, 1))
    x, foot = S / 2 + side * rng.uniform(92, 112), rng.uniform(190, 220)
    if rng.random() < 0.6:
        crown = (x - side * 14, rng.uniform(48, 80))
        draw.line(
            [(x, foot), (x - side * 2, foot - 60), crown], fill=_jitter(rng, (130, 88, 50)), width=11, joint="curve"
        )
        green = _jitter(rng, (38, 140, 60))
        for angle in np.linspace(0.05, 0.95, 6) * -math.pi:
            tip = (crown[0] + 50 * math.cos(angle), crown[1] + 26 * math.sin(angle) + 20)
            middle = (crown[0] + 26 * math.cos(angle), crown[1] + 30 * math.sin(angle) - 8)
            draw.polygon([crown, middle, tip, (middle[0], middle[1] + 14)], fill=green)
    else:
        top, radius = rng.uniform(80, 105), 44
        draw.line([(x, top), (x, foot)], fill=(240, 240, 240), width=5)
        first, second = _choose(rng, [(225, 60, 60), (40, 110, 200), (245, 140, 30)]), (252, 252, 252)
        for stripe in range(6):
            draw.pieslice(
                (x - radius, top - 30, x + radius, top + 58),
                180 + 30 * stripe,
                210 + 30 * stripe,
                fill=(first, second)[stripe % 2],
            )
    return picture


def sunset(rng: Rng) -> Image.Image:
    """A low orange sun with rays of haze, dark hills or its glitter on water."""
    picture, draw = _canvas(_choose(rng, [(95, 45, 120), (140, 40, 90), (70, 40, 110)]), _jitter(rng, (255, 175, 70)))
    x, y, radius = rng.uniform(60, 196), rng.uniform(90, 130), rng.uniform(30, 42)
    for halo, colour in ((1.8, (250, 140, 80)), (1.4, (253, 165, 85))):
        _disc(draw, x, y, radius * halo, colour)
    _disc(draw, x, y, radius, _jitter(rng, (255, 225, 110)))
    for _ in range(rng.integers(2, 5)):
        cx, cy, width = rng.uniform(0, S), rng.uniform(25, 120), rng.uniform(30, 70)
        draw.rounded_rectangle((cx - width, cy, cx + width, cy + 7), 4, fill=_jitter(rng, (225, 95, 95)))
    horizon = rng.uniform(140, 160)
    if rng.random() < 0.5:
        draw.rectangle((0, horizon, S, S), fill=_jitter(rng, (120, 55, 105)))
        for row in range(6):
            width = radius * rng.uniform(0.5, 1.2)
            draw.rounded_rectangle(
                (x - width, horizon + 5 + 12 * row, x + width, horizon + 10 + 12 * row), 2, fill=(255, 185, 95)
            )
    else:
        _hills(rng, draw, horizon - 5, 8, _jitter(rng, (125, 50, 85)))
        _hills(rng, draw, horizon + 22, 10, _jitter(rng, (75, 30, 65)))
    return picture


def city(rng: Rng) -> Image.Image:
    """Night, towers with lit windows, perhaps a moon."""
    picture, draw = _canvas(_jitter(rng, (10, 14, 45), 8), _choose(rng, [(62, 48, 110), (40, 60, 115), (85, 50, 100)]))
    for x, y in rng.uniform((0, 0), (S, 110), (25, 2)):
        _disc(draw, x, y, rng.uniform(0.8, 1.6), (255, 255, 230))
    if rng.random() < 0.6:
        x, y = rng.uniform(30, 226), rng.uniform(22, 45)
        _disc(draw, x, y, 14, (250, 245, 210))
    for depth, (low, high) in enumerate(((45, 110), (80, 150))):
        x = -rng.uniform(0, 25)
        while x < S:
            width, top = rng.uniform(28, 48), rng.uniform(low, high)
            wall = _jitter(rng, ((44, 46, 88), (24, 26, 54))[depth], 7)
            draw.rectangle((x, top, x + width, S), fill=wall)
            for wy in np.arange(top + 8, S, 15):
                for wx in np.arange(x + 6, x + width - 8, 11):
                    if rng.random() < 0.55:
                        draw.rectangle((wx, wy, wx + 5, wy + 7), fill=_choose(rng, [(255, 214, 95), (255, 236, 160)]))
            x += width + rng.uniform(0, 5)
    return picture


def snow(rng: Rng) -> Image.Image:
    """Pale sky, white hills, snow-covered pines, falling flakes."""
    picture, draw = _canvas(
        _choose(rng, [(150, 185, 215), (165, 180, 205), (125, 175, 220)]), _jitter(rng, (228, 238, 246), 8)
    )
    if rng.random() < 0.6:
        for peak in rng.uniform(20, 236, 3):
            top, width = rng.uniform(40, 75), rng.uniform(60, 85)
            draw.polygon([(peak, top), (peak - width, 165), (peak + width, 165)], fill=_jitter(rng, (120, 145, 175)))
            draw.polygon(
                [(peak, top), (peak - width * 0.35, top + 42), (peak, top + 30), (peak + width * 0.35, top + 42)],
                fill=(250, 252, 255),
            )
    _hills(rng, draw, 150, 8, _jitter(rng, (222, 233, 243), 6))
    for x in rng.permutation(np.linspace(12, 244, 7))[: rng.integers(3, 6)]:
        height, foot = rng.uniform(70, 105), rng.uniform(160, 185)
        _pine(draw, x, foot, height, _jitter(rng, (50, 95, 85)))
        draw.polygon(
            [(x, foot - height), (x - height * 0.12, foot - height * 0.75), (x + height * 0.12, foot - height * 0.75)],
            fill=(250, 252, 255),
        )
    _hills(rng, draw, 190, 6, (248, 251, 255))
    for x, y in rng.uniform(0, S, (rng.integers(50, 90), 2)):
        _disc(draw, x, y, rng.uniform(1.5, 3.2), (255, 255, 255))
    return picture


def forest(rng: Rng) -> Image.Image:
    """Trunks and crowns, deep green, light between the trees."""
    picture, draw = _canvas(
        _choose(rng, [(190, 225, 150), (165, 215, 165), (215, 228, 140)]), _jitter(rng, (90, 150, 80))
    )
    for depth, shade in enumerate(((70, 130, 75), (38, 98, 55))):
        for x in np.linspace(-5, S + 5, 6) + rng.uniform(-18, 18, 6):
            width, bark = rng.uniform(5, 8) + 4 * depth, _jitter(rng, ((118, 88, 60), (88, 60, 38))[depth])
            draw.rectangle((x - width, 20, x + width, S), fill=bark)
        for x in np.linspace(0, S, 9) + rng.uniform(-14, 14, 9):
            _disc(draw, x, rng.uniform(0, 52) - 26 * depth, rng.uniform(26, 40), _jitter(rng, shade))
    _hills(rng, draw, 188, 5, _jitter(rng, (62, 125, 52)))
    for x in rng.uniform(0, S, 22):
        foot = rng.uniform(178, 215)
        draw.polygon([(x, foot - rng.uniform(14, 26)), (x - 5, foot), (x + 5, foot)], fill=_jitter(rng, (45, 110, 48)))
    for _ in range(rng.integers(0, 4)):
        x, foot = rng.uniform(10, 246), rng.uniform(185, 205)
        draw.rectangle((x - 3, foot - 10, x + 3, foot), fill=(245, 235, 215))
        draw.pieslice((x - 10, foot - 22, x + 10, foot), 180, 360, fill=(215, 50, 45))
    return picture


def desert(rng: Rng) -> Image.Image:
    """Dunes, a hot sky, cacti, perhaps a mesa."""
    picture, draw = _canvas(
        _choose(rng, [(90, 185, 225), (245, 195, 130), (120, 200, 215)]), _jitter(rng, (253, 232, 190), 8)
    )
    _disc(draw, rng.uniform(30, 226), rng.uniform(25, 55), rng.uniform(16, 22), (255, 250, 200))
    if rng.random() < 0.6:
        x, top, width = rng.uniform(40, 216), rng.uniform(85, 110), rng.uniform(28, 46)
        draw.polygon(
            [(x - width, top), (x + width, top), (x + width * 1.5, 175), (x - width * 1.5, 175)],
            fill=_jitter(rng, (195, 95, 60)),
        )
        draw.rectangle((x - width * 1.12, top + 16, x + width * 1.12, top + 24), fill=_jitter(rng, (225, 130, 85)))
    _hills(rng, draw, 150, 8, _jitter(rng, (236, 176, 98)))
    _hills(rng, draw, 178, 9, _jitter(rng, (222, 152, 74)))
    sides = rng.permutation([-1, 1])[: rng.integers(1, 3)]
    for x in S / 2 + sides * rng.uniform(78, 112, len(sides)):
        green, foot, height = _jitter(rng, (58, 130, 72)), rng.uniform(180, 205), rng.uniform(90, 120)
        draw.rounded_rectangle((x - 9, foot - height, x + 9, foot), 9, fill=green)
        for side in (-1, 1):
            elbow = foot - height * rng.uniform(0.35, 0.6)
            outer = x + side * 24
            draw.rounded_rectangle((min(x, outer) - 5, elbow - 6, max(x, outer) + 5, elbow + 6), 6, fill=green)
            draw.rounded_rectangle((outer - 6, elbow - 32, outer + 6, elbow + 6), 6, fill=green)
    return picture


def underwater(rng: Rng) -> Image.Image:
    """Blue depth with light shafts, fish, bubbles, sea weed."""
    picture, draw = _canvas(
        _choose(rng, [(60, 190, 225), (50, 170, 215), (70, 205, 210)]), _choose(rng, [(8, 50, 125), (5, 70, 115)])
    )
    shafts = Image.new("L", (S, S))
    for x in rng.uniform(0, S, 4):
        lean, width = rng.uniform(-50, 50), rng.uniform(8, 20)
        ImageDraw.Draw(shafts).polygon(
            [(x - width, 0), (x + width, 0), (x + lean + 2 * width, 190), (x + lean - 2 * width, 190)], fill=38
        )
    picture.paste((225, 250, 255), (0, 0), shafts)
    for x in rng.uniform(0, S, rng.integers(4, 8)):
        foot, sway, green = S, rng.uniform(5, 10), _jitter(rng, (40, 150, 90))
        y = np.linspace(foot, rng.uniform(95, 160), 24)
        draw.line(list(zip(x + sway * np.sin(y / 13), y, strict=True)), fill=green, width=9, joint="curve")
    for _ in range(rng.integers(3, 6)):
        x, y, size, side = rng.uniform(20, 236), rng.uniform(20, 130), rng.uniform(11, 18), rng.choice((-1, 1))
        colour = _choose(rng, [(255, 140, 30), (255, 215, 60), (240, 85, 110), (190, 110, 230)])
        draw.polygon(
            [(x - side * size, y), (x - side * size * 2, y - size * 0.7), (x - side * size * 2, y + size * 0.7)],
            fill=colour,
        )
        draw.ellipse((x - size * 1.3, y - size * 0.75, x + size * 1.3, y + size * 0.75), fill=colour)
        _disc(draw, x + side * size * 0.7, y - 2, 3, (255, 255, 255))
        _disc(draw, x + side * size * 0.75, y - 2, 1.5, (10, 10, 30))
    for x, y in rng.uniform((0, 10), (S, 190), (rng.integers(8, 18), 2)):
        radius = rng.uniform(2.5, 6)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(205, 242, 252), width=2)
    return picture


def space(rng: Rng) -> Image.Image:
    """Black sky, stars, a planet with a ring or with bands, a small moon."""
    picture, draw = _canvas(_jitter(rng, (12, 8, 35), 7), _choose(rng, [(45, 18, 75), (18, 28, 70), (10, 10, 30)]))
    for x, y in rng.uniform(0, S, (rng.integers(60, 100), 2)):
        _disc(draw, x, y, rng.uniform(0.8, 2.0), _choose(rng, [(255, 255, 255), (255, 240, 200), (200, 220, 255)]))
    x, y, radius = rng.choice((55, 128, 200)) + rng.uniform(-20, 20), rng.uniform(40, 70), rng.uniform(26, 38)
    body = _choose(rng, [(230, 150, 80), (90, 150, 230), (220, 100, 110), (120, 200, 170), (180, 120, 220)])
    ring = tuple(min(255, c + 70) for c in body)
    box = (x - radius * 1.9, y - radius * 0.5, x + radius * 1.9, y + radius * 0.5)
    has_ring = rng.random() < 0.7
    if has_ring:
        draw.arc(box, 170, 370, fill=ring, width=7)
    _disc(draw, x, y, radius, body)
    _disc(draw, x - radius * 0.3, y - radius * 0.3, radius * 0.5, tuple(min(255, c + 28) for c in body))
    if has_ring:
        draw.arc(box, -5, 185, fill=ring, width=7)
    moon = (S - x + rng.uniform(-15, 15), rng.uniform(95, 135), rng.uniform(9, 14))
    _disc(draw, *moon, (205, 205, 212))
    _disc(draw, moon[0] - 3, moon[1] + 2, 3, (165, 165, 175))
    if rng.random() < 0.5:
        _hills(rng, draw, 200, 5, _jitter(rng, (120, 118, 128)))
    return picture


def room(rng: Rng) -> Image.Image:
    """A papered wall, a window or a framed picture, a lamp, a floor."""
    wall = _choose(rng, [(235, 205, 175), (190, 210, 195), (215, 190, 205), (240, 222, 160), (180, 200, 220)])
    picture, draw = _canvas(wall, tuple(c - 12 for c in wall))
    for x in np.arange(rng.uniform(0, 16), S, rng.uniform(20, 30)):
        draw.rectangle((x, 0, x + 5, S), fill=tuple(c - 10 for c in wall))
    draw.rectangle((0, 198, S, 205), fill=(245, 240, 232))
    draw.rectangle((0, 205, S, S), fill=_jitter(rng, (150, 105, 70)))
    sides = rng.permutation([66, 190])
    x, top = sides[0] + rng.uniform(-12, 12), rng.uniform(24, 38)
    draw.rectangle((x - 42, top - 5, x + 42, top + 85), fill=_jitter(rng, (250, 246, 238), 5))
    picture.paste(
        _gradient(_jitter(rng, (110, 190, 240)), (225, 242, 250), 80).crop((0, 0, 74, 80)), (int(x - 37), int(top))
    )
    draw.rectangle((x - 37, top + 58, x + 36, top + 79), fill=_jitter(rng, (105, 175, 90)))
    draw.rectangle((x - 2, top, x + 2, top + 80), fill=(250, 246, 238))
    draw.rectangle((x - 37, top + 38, x + 37, top + 42), fill=(250, 246, 238))
    curtain = _choose(rng, [(200, 70, 70), (70, 110, 170), (90, 150, 110), (150, 90, 150)])
    for side in (-1, 1):
        draw.polygon(
            [(x + side * 52, top - 8), (x + side * 20, top - 8), (x + side * 40, top + 92), (x + side * 52, top + 92)],
            fill=curtain,
        )
    x = sides[1] + rng.uniform(-10, 10)
    if rng.random() < 0.5:
        draw.line([(x, 0), (x, 42)], fill=(70, 60, 55), width=4)
        draw.polygon([(x - 14, 40), (x + 14, 40), (x + 32, 78), (x - 32, 78)], fill=_jitter(rng, (255, 205, 90)))
        _disc(draw, x, 80, 8, (255, 250, 215))
    else:
        y = rng.uniform(38, 52)
        draw.rectangle((x - 32, y - 5, x + 32, y + 50), fill=_jitter(rng, (120, 80, 45)))
        draw.rectangle((x - 26, y, x + 26, y + 44), fill=_jitter(rng, (250, 240, 215)))
        _disc(draw, x + rng.uniform(-10, 10), y + 20, 13, _choose(rng, [(225, 95, 70), (70, 130, 180), (235, 175, 60)]))
    return picture


def stage(rng: Rng) -> Image.Image:
    """Red curtains to both sides, spotlights, a wooden floor."""
    picture, draw = _canvas(_jitter(rng, (48, 18, 40), 8), _jitter(rng, (88, 34, 52), 8))
    draw.polygon([(0, S), (0, 200), (S, 200), (S, S)], fill=_jitter(rng, (165, 108, 62)))
    light = _choose(rng, [(255, 240, 170), (190, 225, 255), (255, 200, 225)])
    beams = Image.new("L", (S, S))
    for x in np.linspace(70, 186, 3) + rng.uniform(-12, 12, 3):
        lean = rng.uniform(-40, 40)
        beam = Image.new("L", (S, S))
        ImageDraw.Draw(beam).polygon([(x - 7, 14), (x + 7, 14), (x + lean + 42, 210), (x + lean - 42, 210)], fill=95)
        beams = Image.fromarray(np.minimum(np.asarray(beams, np.uint16) + np.asarray(beam), 200).astype(np.uint8))
        picture.paste(light, (0, 0), beam)
        draw.rectangle((x - 10, 6, x + 10, 20), fill=(25, 22, 28))
    red = _choose(rng, [(200, 30, 45), (170, 25, 60), (215, 45, 35)])
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
    "on a stage": stage,
}
"""Scenes by the words that name them in a caption."""
