"""People by their words, beside the base model's own picture of the same seed."""

from __future__ import annotations

from .families import Family
from .template import Output, Template
from .workflow import Workflow

NOTE = """**What to change first**

1. The scene in the prompt. Keep each person's word in it.
2. The seed of both samplers.
3. `strength` in *Apply MoA*, if the likeness is too weak or too strong."""


def people(words: list[str], family: Family) -> Template:
    """One picture of all of them."""
    w = Workflow(family, NOTE)
    columns = [person(w, word) for word in words]
    positive = w.prompt(family.text(" and ".join(f"a {word}" for word in words)), *(column[-1] for column in columns))
    negative, apply, latent = w.negative(), w.apply(), w.latent(family.pictures)
    ours = w.sample("With your people", apply, positive, negative, latent)
    saved = w.save("With your people", ours[-1])
    alone = w.sample("Base model alone", w.model, positive, negative, latent)
    pictures = [saved, w.save("Base model alone", alone[-1]), w.router_map(apply, ours[-1])]
    w.group("2  Your people", *columns)
    w.group("3  Prompt", [positive, negative])
    w.group("4  Apply and sample", [apply, latent], [*ours, *alone])
    w.group("5  Pictures", pictures)
    w.thumbnail = [saved.node]
    return w


def person(w: Workflow, word: str) -> list[Output]:
    """Load Image and Encode Subject of a person."""
    image = w.picture(f"The {word}", f"moa_{word}.png")
    return [image, w.encode(f"Encode the {word}", image, word)]
