"""Two passes: the router's map as the mask of an inpainting pass, and the person of an existing picture swapped by inversion."""

from __future__ import annotations

from .families import Family
from .template import Output, Template
from .workflow import Workflow

INPAINT_NOTE = """**Inpainting by the router's map.** The first pass makes the picture. The map of its router is the mask of a second pass, which
repaints only the person, with a higher strength. Nothing else changes.

**What to change first**: `strength` in *Apply MoA, pass 2*, `denoise` of pass 2, `mask_threshold` of the map."""
REAL_NOTE = """**Swap the person of an existing picture.** The picture is inverted: the sampler runs from the picture to the noise that gives it
(*From picture to noise*, CFG 1). From that noise, the base model alone gives the picture back, and MoA gives it with another person. At CFG 1,
`subject_guidance` in *Apply MoA* strengthens the person, and *keep_background* leaves the rest of the picture as it is.

**What to change first**: the picture and the prompt that describes it, the person, `subject_guidance` and `strength` in *Apply MoA*, `denoise` of
the schedule: less of it keeps more of the picture."""

REAL = {"strength": 2.0, "start_percent": 0.0, "keep_background": True, "subject_guidance": 3.0}
"""The noise of an inverted picture contains its person, against whom the new one has to prevail."""


def inpaint(family: Family) -> Template:
    """A second pass at a higher strength, inside the map of the first."""
    w = Workflow(family, INPAINT_NOTE)
    image = w.picture("The man", "moa_man_2.png")
    subject = w.encode("Encode the man", image, "man")
    positive, negative = w.prompt(family.text("a man"), subject), w.negative()
    apply, latent = w.apply("Apply MoA, pass 1"), w.latent(family.pictures)
    first = w.sample("Pass 1", apply, positive, negative, latent)
    router_map = w.router_map(apply, first[-1])
    mask = w.add(
        "GrowMask", "A little wider", mask=Output(router_map.node, 1), expand=family.side // 32, tapered_corners=True
    )
    masked = w.add("SetLatentNoiseMask", "Only inside the mask", samples=first[0], mask=mask)
    stronger = w.apply("Apply MoA, pass 2", strength=family.stronger, start_percent=0.0)
    second = w.sample("Pass 2", stronger, positive, negative, masked, denoise=0.9)
    pictures = [w.save("Pass 1", first[-1]), w.save("Pass 2", second[-1])]
    w.group("2  The man", [image, subject])
    w.group("3  Prompt", [positive, negative, latent])
    w.group("4  Pass 1", [apply, *first])
    w.group("5  Mask", [router_map, mask, masked])
    w.group("6  Pass 2", [stronger, *second])
    w.group("7  Pictures", pictures)
    w.thumbnail = [pictures[1].node]
    return w


def real_picture(family: Family) -> Template:
    """Inversion of a picture, then the base model and MoA from its noise."""
    w = Workflow(family, REAL_NOTE)
    image, person = w.picture("The picture", "moa_scene.png"), w.picture("The new person", "moa_man_2.png")
    subject = w.encode("Encode the person", person, "man")
    positive, negative = w.prompt(family.text("a man"), subject), w.negative()
    noisy = w.add("VAEEncode", "The picture as a latent", pixels=image, vae=w.vae)
    sampler = w.add("KSamplerSelect", "Sampler", sampler_name="euler")
    schedule = w.add("BasicScheduler", "Schedule", model=w.model, scheduler="sgm_uniform", steps=50, denoise=1.0)
    flipped = w.add("FlipSigmas", "From picture to noise", sigmas=schedule)
    settings = {"add_noise": False, "noise_seed": 0, "positive": positive, "negative": negative, "sampler": sampler}
    apply = w.apply(**REAL)
    inverted = w.add("SamplerCustom", "Invert", model=w.model, cfg=1.0, sigmas=flipped, latent_image=noisy, **settings)
    back, ours = (
        w.add("SamplerCustom", title, model=model, cfg=1.0, sigmas=schedule, latent_image=inverted, **settings)
        for title, model in (("Base model alone", w.model), ("With the new person", apply))
    )
    decoded = [w.decode(ours), w.decode(back)]
    pictures = [w.save("With the new person", decoded[0]), w.save("Base model alone", decoded[1])]
    w.group("2  Picture and person", [image, noisy], [person, subject])
    w.group("3  Prompt and schedule", [positive, negative, sampler, schedule, flipped])
    w.group("4  Invert and sample", [apply, inverted], [ours, decoded[0], back, decoded[1]])
    w.group("5  Pictures", [*pictures, w.router_map(apply, decoded[0])])
    w.thumbnail = [picture.node for picture in pictures]
    return w
