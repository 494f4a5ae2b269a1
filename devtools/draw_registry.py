"""Makes the icon and the banner of the registry's entry from a figure of the README: `.venv/bin/python -m devtools.draw_registry`."""

from __future__ import annotations

from PIL import Image

from .host import ROOT

IMAGES = ROOT / "docs" / "images"
PICTURE, MAP = (690, 246, 914, 470), (920, 246, 1144, 470)
"""Where `two_people.png` has a picture with two people and its map."""
ICON = 400
"""Pixels of the icon's side; the registry shows at most so many."""


def main() -> None:
    figure = Image.open(IMAGES / "two_people.png").convert("RGB")
    icon = figure.crop(PICTURE)
    half = icon.width // 2
    icon.paste(figure.crop(MAP).crop((half, 0, icon.width, icon.height)), (half, 0))
    icon.resize((ICON, ICON), Image.Resampling.LANCZOS).quantize(256).save(IMAGES / "icon.png", optimize=True)
    figure.crop((0, 0, figure.width, figure.width * 9 // 21)).quantize(256).save(IMAGES / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
