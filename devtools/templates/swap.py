"""Subject swap: the same prompt and seed with other reference pictures, in the whole picture or in a region."""

from __future__ import annotations

from .families import Family
from .template import Output, Template
from .workflow import Workflow

MEN = ["moa_man.png", "moa_man_2.png", "moa_man_3.png", "moa_man_4.png"]
SWAP_NOTE = """**Subject swap.** One prompt and one seed, four people in turn. With *keep_background* in *Apply MoA*, the scene
stays that of the base model alone.

*Create List* runs everything behind it once for each picture. Connect more pictures to it for more people.

**What to change first**: the pictures, the scene in the prompt, the seed of both samplers."""
REGION_NOTE = """**Swap one of two.** The prompt has two people. Only the man becomes a subject, and *Subject Settings (MoA)* keeps him to the left
half. The woman stays the base model's, with the help of *keep_background* in *Apply MoA*.

**What to change first**: the pictures, the scene in the prompt, the region. Instead of the three mask nodes you can paint a mask in the mask editor
of a *Load Image*."""


def swap(family: Family) -> Template:
    """Four people in turn, beside the base model alone."""
    w = Workflow(family, SWAP_NOTE)
    images = [w.picture(f"Person {i}", file) for i, file in enumerate(MEN, start=1)]
    listed = w.each("Each person in turn", images)
    subject = w.encode("Encode the person", listed, "man")
    w.group("2  The people", [*images[:2], listed], [*images[2:], subject])
    show_beside_base(w, family.text("a man"), subject)
    return w


def region(family: Family) -> Template:
    """One of two people becomes two others in turn."""
    w = Workflow(family, REGION_NOTE)
    side = family.side
    images = [w.picture(f"Person {i}", file) for i, file in enumerate(MEN[:2], start=1)]
    listed = w.each("Each person in turn", images)
    subject = w.encode("Encode the person", listed, "man")
    everywhere = w.add("SolidMask", "The whole picture", value=0.0, width=side, height=side)
    half = w.add("SolidMask", "The left half", value=1.0, width=side // 2, height=side)
    area = w.add("MaskComposite", "The region", destination=everywhere, source=half, x=0, y=0, operation="add")
    kept = w.add("MoASubjectSettings", "Keep him to the region", subject=subject, strength=1.0, start_percent=0.0,
                 end_percent=1.0, region=area)  # fmt: skip
    w.group("2  The people and the region", [*images, listed, everywhere], [subject, half, area, kept])
    show_beside_base(w, family.text("a man and a woman"), kept)
    return w


def show_beside_base(w: Workflow, text: str, subject: Output) -> None:
    """Sample with each subject and without any, and show the map of the last run."""
    words, apply, latent = w.words(text), w.apply(keep_background=True), w.latent()
    positive = w.prompt(words, subject, title="With the person")
    plain, negative = w.plain_prompt("Without a person", words), w.negative()
    ours = w.sample("Each person", apply, positive, negative, latent)
    alone = w.sample("Base model alone", w.model, plain, negative, latent)
    saved = [w.save("Each person", ours[-1]), w.save("Base model alone", alone[-1])]
    batch = w.add("RebatchImages", "All in one batch", images=ours[-1], batch_size=64)
    last = w.add("ImageFromBatch", "The last of them", image=batch, batch_index=63, length=1)
    number = len(w.groups) + 1
    w.group(f"{number}  Prompt", [words, positive, plain, negative])
    w.group(f"{number + 1}  Apply and sample", [apply, latent, batch, last], [*ours, *alone])
    w.group(f"{number + 2}  Pictures", [*saved, w.router_map(apply, last, "Router's map of the last")])
    w.thumbnail = [saved[0].node]
