"""What a neighbour does with MoA, compared with what it does alone: every cell of the table is a few sampling runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scene import Inputs, Neighbour, Scene, changed
from schemas import NotMade
from torch import Tensor

OFF = float("inf")
"""The prior's bias at strength 0."""
PINNED = 9999.0
"""A prior's bias at which the personalised branch runs and has no share."""
LEAST = 0.1
"""Part of its effect that a neighbour must have with MoA, too. Much of the branch's output does not pass it."""
SUBJECT = 0.01
"""Standard deviations by which a subject must change a picture."""
ROUNDING = 1e-4
"""Standard deviations by which a call of other rows may differ."""
PLACES = ("before", "after")
"""Of a neighbour, relative to Apply MoA."""


@dataclass(frozen=True)
class Cell:
    """The result of one placement."""

    text: str
    fault: bool = False
    """Whether MoA is at fault."""


def judge(scene: Scene, neighbour: Neighbour) -> list[Cell]:
    """The cells of a neighbour: one for each place, or one where it has none."""
    places = PLACES if neighbour.on_model else PLACES[:1]
    if scene.family.name in neighbour.missing:
        return [Cell(f"n/a: {neighbour.missing[scene.family.name]}")] * len(places)
    try:
        theirs = picture(scene, neighbour)
    except NotMade as error:
        return [Cell(f"n/a: {error}")] * len(places)
    except Exception as error:  # whatever another node raises
        return [Cell(f"n/a: {sentence(error)}")] * len(places)
    if not theirs.isfinite().all():
        return [Cell("n/a: not finite")] * len(places)
    return [judge_place(scene, neighbour, place, theirs) for place in places]


def judge_place(scene: Scene, neighbour: Neighbour, place: str, theirs: Tensor) -> Cell:
    """A placement, given the picture without MoA."""
    try:
        return compare(scene, neighbour, place, theirs)
    except Exception as error:
        return Cell(f"FAILS: {sentence(error)}", fault=True)


def compare(scene: Scene, neighbour: Neighbour, place: str, theirs: Tensor) -> Cell:
    """With a subject; at strength 0; and with the branch computed for no share."""
    both = picture(scene, neighbour, place, 0.0)
    if not both.isfinite().all():
        return Cell("NOT FINITE", fault=True)
    if neighbour.compared and torch.equal(plain(scene, neighbour, None), theirs):
        same = changed(plain(scene, neighbour, 0.0), both) < ROUNDING
        return Cell("no effect" if same else "NO EFFECT without MoA, but with it", fault=not same)
    for name, bias in {"strength 0": OFF, "no share": PINNED}.items():
        if not torch.equal(picture(scene, neighbour, place, bias), theirs):
            varies = not torch.equal(picture(scene, neighbour), theirs)
            return Cell("n/a: varies from run to run" if varies else f"NOT EXACT at {name}", fault=not varies)
    subject = changed(theirs, both)
    if subject < SUBJECT:
        return Cell("NO EFFECT of the subject", fault=True)
    if not neighbour.compared:
        return Cell("exact, kept")
    alone = changed(plain(scene, neighbour, None), theirs)
    part = changed(plain(scene, neighbour, 0.0), both) / alone
    return Cell("exact, kept" if part > LEAST else f"exact, ONLY {part:.0%} of its effect", fault=part <= LEAST)


def picture(scene: Scene, neighbour: Neighbour, place: str = "before", bias: float | None = None) -> Tensor:
    """Sampled with the neighbour; with MoA and a subject where there is a prior's bias."""
    inputs = scene.inputs(neighbour.size, bias is not None, neighbour.options)

    def theirs(given: Inputs) -> Inputs:
        return neighbour.apply(scene, given)

    def ours(given: Inputs) -> Inputs:
        return given if bias is None else scene.attach(given, prior_bias=bias)

    steps: tuple[Callable[[Inputs], Inputs], ...] = (theirs, ours) if place == "before" else (ours, theirs)
    for step in steps:
        inputs = step(inputs)
    return neighbour.sample(scene, inputs)


def plain(scene: Scene, neighbour: Neighbour, bias: float | None) -> Tensor:
    """Sampled without the neighbour."""
    key = (neighbour.size, tuple(neighbour.options.items()), bias)
    if key not in scene.pictures:
        without = Neighbour("none", size=neighbour.size, options=neighbour.options)
        scene.pictures[key] = picture(scene, without, bias=bias)
    return scene.pictures[key]


def sentence(error: Exception) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:140]}"
