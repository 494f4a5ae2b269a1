"""From one to the other in steps: between two subjects, and between two words for one subject."""

from __future__ import annotations

from .families import Family
from .template import Output, Template
from .workflow import Workflow

STEPS = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
MORPH_NOTE = """**Morph.** Six subjects between two people: *Blend Subjects (MoA)* with rising amounts. Prompt and seed stay the same.

**What to change first**: the two pictures, the amounts, the scene in the prompt. More amounts make the animation smoother."""
TIME_LAPSE_NOTE = """**Time-lapse.** One reference picture; only the text at the subject's word moves from one word to another. *Conditioning (Average)*
keeps the subject of the prompt that is connected to `conditioning_to`.

MoA Mini knows the words *man* and *woman*. With a large model, use words for ages, such as *boy* and *old man*.

**What to change first**: the picture, the two prompts, which may differ only in the word."""


def morph(family: Family) -> Template:
    """From one person to another."""
    w = Workflow(family, MORPH_NOTE)
    images = [w.picture("First person", "moa_man.png"), w.picture("Second person", "moa_man_2.png")]
    encoded = [
        w.encode(title, image, "man")
        for title, image in zip(("Encode the first", "Encode the second"), images, strict=True)
    ]
    amounts, listed = steps(w, "Amount", STEPS)
    blend = w.add(
        "MoASubjectBlend", "Between the two", first=encoded[0], second=encoded[1], amount=listed, along="sphere"
    )
    positive, negative = w.prompt(family.text("a man"), blend), w.negative()
    w.group("2  Two people", images)
    w.group("3  Steps between them", [*amounts, listed], [*encoded, blend])
    show_strip(w, positive, negative, [positive, negative])
    return w


def time_lapse(family: Family) -> Template:
    """From one word to another, with one reference picture."""
    w = Workflow(family, TIME_LAPSE_NOTE)
    image = w.picture("The person", "moa_man_2.png")
    subject = w.encode("Encode the person", image, "man")
    first = w.prompt(family.text("a man"), subject, title="The first word, with the subject")
    second, negative = w.plain_prompt("The second word", family.text("a woman")), w.negative()
    amounts, listed = steps(w, "Part of the first word", STEPS[::-1])
    between = w.add("ConditioningAverage", "Between the two", conditioning_to=first, conditioning_from=second,
                    conditioning_to_strength=listed)  # fmt: skip
    w.group("2  The person", [image, subject])
    w.group("3  Two prompts", [first, second, negative])
    w.group("4  Steps between them", amounts)
    show_strip(w, between, negative, [listed, between])
    return w


def steps(w: Workflow, title: str, values: list[float]) -> tuple[list[Output], Output]:
    """Numbers, and the list of them."""
    numbers = [w.add("PrimitiveFloat", f"{title} {i}", value=step) for i, step in enumerate(values, start=1)]
    return numbers, w.each("Each in turn", numbers)


def show_strip(w: Workflow, positive: Output, negative: Output, before: list[Output]) -> None:
    """Sample each step, and show the pictures side by side and as an animation.

    Args: before: nodes that stand above Apply MoA.
    """
    apply, latent = w.apply(), w.latent()
    sampled = w.sample("Each step", apply, positive, negative, latent)
    batch = w.add("RebatchImages", "All in one batch", images=sampled[-1], batch_size=64)
    strip = w.save("The strip", batch)
    animation = w.add("SaveAnimatedWEBP", "The animation", images=batch, filename_prefix="moa", fps=3.0, lossless=True,
                      quality=80, method="default")  # fmt: skip
    number = len(w.groups) + 1
    w.group(f"{number}  Sample each step", [*before, apply], [latent, *sampled, batch])
    w.group(f"{number + 1}  Pictures", [strip, animation])
    w.thumbnail = [strip.node]
