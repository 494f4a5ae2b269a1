"""The example workflows by name. `draw_workflow` lets the real page turn them into `example_workflows/`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .between import morph, time_lapse
from .families import FAMILIES, Family
from .passes import inpaint, real_picture
from .people import people
from .regional import regional_prompts
from .series import seeds, story
from .steered import pose, style
from .swap import region, swap
from .template import Template
from .training import training

EVERY_FAMILY: dict[str, Callable[[Family], Template]] = {
    "one_person": partial(people, ["man"]),
    "two_people": partial(people, ["man", "woman"]),
    "swap": swap,
    "swap_one_of_two": region,
    "story": story,
    "inpaint": inpaint,
    "regional_prompts": regional_prompts,
    "pose": pose,
    "style": style,
}
MINI_ONLY: dict[str, Callable[[Family], Template]] = {
    "seeds": seeds,
    "morph": morph,
    "real_picture": real_picture,
    "time_lapse": time_lapse,
    "training": training,
}
TEMPLATES: dict[str, Callable[[], Template]] = {
    **{
        f"{name}_{family}": partial(make, FAMILIES[family])
        for family in FAMILIES
        for name, make in EVERY_FAMILY.items()
    },
    **{f"{name}_mini": partial(make, FAMILIES["mini"]) for name, make in MINI_ONLY.items()},
}


def example(name: str) -> Template:
    """The template of that name: `two_people_mini`, `swap_sd15` …"""
    return TEMPLATES[name]()
