"""Training from a folder: the bundled adapter learns one more person, beside the adapter as it was."""

from __future__ import annotations

from .families import Family
from .template import Template
from .workflow import Workflow

NOTE = """**Training from a folder.** `input/moa_example` has eight pictures of one man, each with a caption and with his mask as its transparency.
The adapter goes on learning from them. The same seed shows him before and after.

**What to change first**: `folder`, `steps`. If a run was stopped, queue it again: it continues. To train anew, change `name`."""


def training(family: Family) -> Template:
    """A short training, and a picture before and after."""
    w = Workflow(family, NOTE)
    trained = w.add("MoATrain", "Train MoA Adapter", model=w.model, clip=w.clip, vae=w.vae, folder="moa_example",
                    name="my_adapter", steps=100, batch_size=4, micro_batch=4, learning_rate=3e-4, rank=0, side=family.side,
                    checkpointing=False, seed=0, licence="not stated", preview_every=0, preview_prompts="a man on a beach", clip_vision_name="clip-vit-large-patch14",
                    start=w.adapter)  # fmt: skip
    kept = w.add("MoASaveAdapter", "Keep the adapter", adapter=trained, filename_prefix="my_adapter", precision="fp16")
    image = w.picture("The man", "moa_man.png")
    text, negative, latent = w.words(family.text("a man")), w.negative(), w.latent(family.pictures)
    shown = []
    for title, adapter in (("after", trained), ("before", w.adapter)):
        subject = w.encode(f"Encode, {title}", image, "man", adapter)
        positive = w.prompt(text, subject, title=f"The prompt, {title}")
        apply = w.apply(f"Apply MoA, {title}", adapter=adapter)
        sampled = w.sample(f"Sample, {title}", apply, positive, negative, latent)
        shown.append([subject, positive, apply, *sampled, w.save(f"{title.capitalize()} the training", sampled[-1])])
    after, before = shown
    w.group("2  Train", [trained, kept])
    w.group("3  Prompt", [image, after[0], text], [before[0], after[1], before[1], negative])
    w.group("4  Apply and sample", [after[2], before[2], latent], [*after[3:5], *before[3:5]])
    w.group("5  Pictures", [after[5], before[5]])
    w.thumbnail = [before[5].node, after[5].node]
    return w
