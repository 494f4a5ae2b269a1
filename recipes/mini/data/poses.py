"""Draws the silhouettes that the example workflow of the ControlNet loads: `python recipes/run.py mini.data.poses`."""

from PIL import Image

from .dataset import place_person
from .faces import ROOT, VARIANTS, load_cutouts
from .scenes import S

FOLDER = ROOT / "example_workflows" / "references"
MAN = 2772
"""A test identity with short hair."""
SIDE = 512
POSES = {"left": (0.3, 0.78, 0.06), "middle": (0.5, 0.92, 0.0), "right": (0.7, 0.72, -0.06)}
"""Middle and height as shares of the picture, and the angle in radians."""


def silhouette(x: float, height: float, angle: float) -> Image.Image:
    """White on black."""
    layer = place_person(load_cutouts()[MAN * VARIANTS], x * S, height * S, angle, mirror=False)
    shape = layer.getchannel("A").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return shape.point([255 * (alpha > 127) for alpha in range(256)])


def main(argv: list[str]) -> None:
    """Write `moa_pose_<name>.png`."""
    for name, pose in POSES.items():
        silhouette(*pose).convert("1").save(FOLDER / f"moa_pose_{name}.png", optimize=True)
