"""Makes the thumbnails of the templates: `.venv/bin/python -m devtools.draw_thumbnails [NAME ...]`.

A template that runs as it is shows its own pictures. One that needs downloaded files shows its canvas, of which
`draw_workflow` has left a picture.
"""

from __future__ import annotations

import io
import json
import math
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageOps

from . import demo, host
from .host import ROOT
from .server import Server
from .templates import TEMPLATES, example
from .workflow import to_prompt

SIDE = 512


def pictures(server: Server, name: str) -> Image.Image:
    """What the template's nodes for the thumbnail show, as a square."""
    workflow = json.loads((demo.EXAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    prompt = to_prompt(workflow, server.object_info())
    outputs = server.queue(prompt)["outputs"]
    shown = [item for key in example(name).thumbnail for item in outputs[key]["images"]]
    return as_square([Image.open(io.BytesIO(server.image(item))).convert("RGB") for item in shown])


def as_square(shown: list[Image.Image]) -> Image.Image:
    """Pictures in rows of equal height, as close to a square as their number allows, before white."""
    columns = math.ceil(math.sqrt(len(shown)))
    rows = math.ceil(len(shown) / columns)
    side, square = SIDE // columns, Image.new("RGB", (SIDE, SIDE), "white")
    top = (SIDE - rows * side) // 2
    for i, picture in enumerate(shown):
        small = picture.resize((side, side), Image.Resampling.LANCZOS)
        square.paste(small, (i % columns * side, top + i // columns * side))
    return square


def canvas_picture(name: str) -> Image.Image:
    """The picture of the template's canvas, its middle."""
    return ImageOps.fit(Image.open(demo.BASE / f"{name}.png").convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)


def main(names: list[str]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Server(host.find(), Path(sys.executable), Path(folder), packs=[ROOT], cpu=True) as server,
    ):
        for name in names or TEMPLATES:
            made = pictures(server, name) if name.endswith("_mini") else canvas_picture(name)
            made.save(demo.EXAMPLES / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1:])
