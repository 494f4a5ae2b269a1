"""What steers the prior beside MoA: a ControlNet for where people are, and a LoRA for the style."""

from __future__ import annotations

from .families import Family
from .template import Output, Template
from .workflow import Workflow

POSE_NOTE = """**Pose by ControlNet.** A ControlNet decides where the person is, and the reference picture who it is. Both act in one run, because
*Apply ControlNet* changes the conditioning and *Apply MoA* the model.

{hint}

**What to change first**: the silhouettes (paint white on black), the person, the scene, `strength` in *Apply ControlNet*."""
HINTS = {True: "The ControlNet of MoA Mini takes silhouettes: white where people are, black elsewhere.",
         False: "This ControlNet takes edges, which *Canny* finds. It can find those of a photo, too."}  # fmt: skip
STYLE_NOTE = """**Style by LoRA.** The LoRA changes the model before *Apply MoA*, so it reaches the prior. The adapter keeps its own queries, keys and
values for your person, which no LoRA changes. Guidance multiplies the difference between the person and the styled prior: a low `cfg` keeps the
person's colours.

**What to change first**: the person, the scene, `strength_model` of the LoRA."""
STYLE_GUIDANCE = 1.5
"""MoA Mini's: at its usual one, people get glaring colours before the styled prior."""
POSES = ["moa_pose_left.png", "moa_pose_middle.png", "moa_pose_right.png"]


def pose(family: Family) -> Template:
    """One person in three poses, beside the base model with them."""
    w = Workflow(
        family,
        POSE_NOTE.format(hint=HINTS[family.silhouettes]),
        controlnet=f"{family.control}, or another ControlNet for edges",
    )
    control = w.add("ControlNetLoader", "The ControlNet", control_net_name=family.control)
    w.groups["1  Models"][0].append(control.node)
    image = w.picture("The man", "moa_man_2.png")
    subject = w.encode("Encode the man", image, "man")
    silhouettes = [w.picture(f"Pose {i}", file) for i, file in enumerate(POSES, start=1)]
    hint = listed = w.each("Each pose in turn", silhouettes)
    edges = []
    if not family.silhouettes:
        hint = w.add("Canny", "Edges", image=listed, low_threshold=0.4, high_threshold=0.8)
        edges = [hint]
    text = w.words(family.text("a man"))
    positive, plain, negative = w.prompt(text, subject), w.plain_prompt("Without a person", text), w.negative()
    apply, latent = w.apply(), w.latent()
    posed = steer(w, "Pose for the person", positive, negative, control, hint)
    alone = steer(w, "Pose for the base model", plain, negative, control, hint)
    ours = w.sample("Each pose", apply, posed[0], posed[1], latent)
    base = w.sample("Base model, each pose", w.model, alone[0], alone[1], latent)
    pictures = [w.save("Each pose", ours[-1]), w.save("Base model, each pose", base[-1])]
    w.group("2  The person and the poses", [image, subject, listed, *edges], silhouettes)
    w.group("3  Prompt", [text, positive, plain, negative, latent])
    w.group("4  Pose, apply, sample", [posed[0], alone[0], apply], [ours[0], base[0]])
    w.group("5  Pictures", [ours[-1], pictures[0], base[-1], pictures[1]])
    w.thumbnail = [pictures[0].node]
    return w


def steer(w: Workflow, title: str, positive: Output, negative: Output, control: Output, hint: Output) -> list[Output]:
    """Positive and negative conditioning of Apply ControlNet."""
    node = w.add("ControlNetApplyAdvanced", title, positive=positive, negative=negative, control_net=control, image=hint,
                 vae=w.vae, strength=1.0, start_percent=0.0, end_percent=1.0).node  # fmt: skip
    return [Output(node, 0), Output(node, 1)]


def style(family: Family) -> Template:
    """One person with the style and without it, and the base model with the style."""
    w = Workflow(family, STYLE_NOTE, loras=f"{family.lora}, or any style LoRA")
    styled = w.add("LoraLoaderModelOnly", "The style", model=w.model, lora_name=family.lora, strength_model=1.0)
    w.groups["1  Models"][0].append(styled.node)
    image = w.picture("The man", "moa_man_2.png")
    subject = w.encode("Encode the man", image, "man")
    positive, negative = w.prompt(family.text("a man"), subject), w.negative()
    with_style, without, latent = (
        w.apply("Apply MoA, with the style", model=styled),
        w.apply(),
        w.latent(family.pictures),
    )
    models = {"With the style": with_style, "Without the style": without, "Base model with the style": styled}
    guided = {} if family.checkpoint else {"cfg": STYLE_GUIDANCE}
    runs = {title: w.sample(title, model, positive, negative, latent, **guided) for title, model in models.items()}
    pictures = [w.save(title, run[-1]) for title, run in runs.items()]
    w.group("2  The man", [image, subject])
    w.group("3  Prompt", [positive, negative, latent])
    w.group("4  Apply MoA", [with_style, without])
    w.group("5  Sample", [sampler for sampler, _ in runs.values()], [decoded for _, decoded in runs.values()])
    w.group("6  Pictures", pictures)
    w.thumbnail = [pictures[0].node]
    return w
