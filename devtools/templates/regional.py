"""Regional prompts beside MoA: each half of the picture has its own prompt and its own person."""

from __future__ import annotations

from collections.abc import Sequence

from .families import Family
from .people import person
from .template import Output, Template
from .workflow import Workflow

NOTE = """**Regional prompts.** Each half of the picture has a prompt of its own (*Conditioning (Set Mask)*), with its own scene. Both prompts
have both people, so that each person is bound to a word as usual, and *Apply MoA* needs no mask.

**What to change first**: the two prompts, the pictures, the masks."""


def regional_prompts(family: Family) -> Template:
    """Two people in front of two scenes."""
    w = Workflow(family, NOTE)
    side = family.side
    people = [person(w, word) for word in ("man", "woman")]
    images, subjects = zip(*people, strict=True)
    black = w.add("SolidMask", "Black", value=0.0, width=side, height=side)
    white = w.add("SolidMask", "White", value=1.0, width=side // 2, height=side)
    mask = w.add("MaskComposite", "Mask of the left half", destination=black, source=white, x=0, y=0, operation="add")
    inverse = w.add("InvertMask", "Mask of the right half", mask=mask)
    left = half(w, "left", family.text("a man and a woman", "in a city at night"), subjects, mask)
    right = half(w, "right", family.text("a man and a woman", "on a beach"), subjects, inverse)
    both = w.add("ConditioningCombine", "Both halves", conditioning_1=left[-1], conditioning_2=right[-1])
    negative, apply, latent = w.negative(), w.apply(), w.latent(family.pictures)
    ours = w.sample("With your people", apply, both, negative, latent)
    alone = w.sample("Base model alone", w.model, both, negative, latent)
    pictures = [w.save("With your people", ours[-1]), w.save("Base model alone", alone[-1])]
    w.group("2  Your people, halves", [*images, black, white])
    w.group("3  Subjects, mask", [*subjects, mask, inverse])
    w.group("4  A prompt for each half", [*left, *right])
    w.group("5  Apply and sample", [both, negative, apply, latent], [*ours, *alone])
    w.group("6  Pictures", [*pictures, w.router_map(apply, ours[-1])])
    w.thumbnail = [pictures[0].node]
    return w


def half(w: Workflow, name: str, text: str, subjects: Sequence[Output], mask: Output) -> list[Output]:
    """Prompt and conditioning of a half."""
    positive = w.prompt(text, *subjects, title=f"The {name} half")
    limited = w.add("ConditioningSetMask", f"Only in the {name} half", conditioning=positive, mask=mask,
                    strength=1.0, set_cond_area="default")  # fmt: skip
    return [positive, limited]
