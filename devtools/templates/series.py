"""Several pictures of one character: a story of six scenes, and several seeds."""

from __future__ import annotations

from .families import Family
from .template import Template
from .workflow import Workflow

STORY = ["on a beach", "in the snow", "in a forest", "in a city at night", "under water", "on a stage"]
SEEDS = [7, 8, 9, 10]
STORY_NOTE = """**Story.** One character in six scenes. *Create List* runs everything behind it once for each scene.

*Save Subject (MoA)* keeps the character in `models/moa/subjects`. In other workflows, *Load Subject (MoA)* replaces *Load Image* and *Encode Subject
(MoA)*.

**What to change first**: the picture, the scenes. Keep the word *man* in each, or change it in *Encode Subject (MoA)*, too."""
SEEDS_NOTE = """**Several seeds.** One character, four seeds, each with the base model's own picture. A seed that you like can be used alone.

**What to change first**: the seeds, the picture, the scene in the prompt."""


def story(family: Family) -> Template:
    """One character, saved, in six scenes."""
    w = Workflow(family, STORY_NOTE)
    image = w.picture("The character", "moa_man_2.png")
    subject = w.encode("Encode the character", image, "man")
    kept = w.add("MoASaveSubject", "Keep the character", subject=subject, filename_prefix="character", thumbnail=image)
    scenes = [
        w.add("PrimitiveString", f"Scene {i}", value=family.text("a man", scene)) for i, scene in enumerate(STORY, 1)
    ]
    listed = w.each("Each scene in turn", scenes)
    positive, negative = w.prompt(listed, subject, title="Each prompt"), w.negative()
    apply, latent = w.apply(), w.latent()
    sampled = w.sample("Each scene", apply, positive, negative, latent)
    saved = w.save("The story", sampled[-1])
    w.group("2  The character", [image, subject, kept])
    w.group("3  The scenes", scenes, [listed, positive, negative])
    w.group("4  Apply and sample", [apply, latent], sampled)
    w.group("5  Pictures", [saved])
    w.thumbnail = [saved.node]
    return w


def seeds(family: Family) -> Template:
    """One character with four seeds, beside the base model alone."""
    w = Workflow(family, SEEDS_NOTE)
    image = w.picture("The man", "moa_man_2.png")
    subject = w.encode("Encode the man", image, "man")
    numbers = [w.add("PrimitiveInt", f"Seed {i}", value=seed) for i, seed in enumerate(SEEDS, start=1)]
    listed = w.each("Each seed in turn", numbers)
    positive, negative = w.prompt(family.text("a man"), subject), w.negative()
    apply, latent = w.apply(), w.latent()
    ours = w.sample("Each seed", apply, positive, negative, latent, seed=listed)
    alone = w.sample("Base model alone", w.model, positive, negative, latent, seed=listed)
    saved = [w.save("Each seed", ours[-1]), w.save("Base model alone", alone[-1])]
    w.group("2  The man", [image, subject])
    w.group("3  Prompt", [positive, negative])
    w.group("4  Seeds", [*numbers, listed])
    w.group("5  Apply and sample", [apply, latent], [*ours, *alone])
    w.group("6  Pictures", saved)
    w.thumbnail = [saved[0].node]
    return w
