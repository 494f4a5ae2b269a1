"""Random workflows over the nodes of this extension, in API format; some of them contain a mistake."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

from world import PICTURES

Nodes = dict[str, dict[str, Any]]
Link = list[Any]


class Family(NamedTuple):
    """A base model and the adapters that fit it."""

    loader: str
    options: dict[str, str]
    adapters: Sequence[str]
    sides: Sequence[int]


MINI = Family("MoALoadMini", {"model": "mini"}, ("bundled/mini/adapter.safetensors",), (64, 128, 192))
TINY = Family(
    "TinyModels", {}, ("drawn.safetensors", "ipadapter/tiny.bin", "ipadapter/tiny_faceid.safetensors"), (64, 128)
)


class Draft:
    """A workflow that is built node by node; every choice is drawn from `r`."""

    def __init__(self, r: random.Random, family: Family, adapter_file: str):
        self.r, self.family, self.adapter_file, self.nodes = r, family, adapter_file, Nodes()
        self.base = self.add(family.loader, **family.options)
        self.adapter = self.add("LoadMoAAdapter", adapter_file=adapter_file)

    def add(self, kind: str, **inputs: Any) -> str:
        key = str(len(self.nodes) + 1)
        self.nodes[key] = {"class_type": kind, "inputs": inputs}
        return key

    def mask(self) -> Link:
        return [self.add("SolidMask", value=1.0, width=64, height=64), 0]

    def encoded(self, word: str) -> Link:
        """A subject from one picture, with what its adapter needs."""
        pictures = [self.add("LoadImage", image=self.r.choice(PICTURES)), 0]
        if self.r.random() < 0.2:
            where = {"order": "largest first", "index": self.r.choice((1, 1, 3)), "margin": self.r.choice((0.0, 0.6))}
            found = self.r.choice(("whole image", "skip the subject", "stop"))
            pictures = [self.add("MoASubjectCrop", images=pictures, if_none=found, **where), 0]
        needed: dict[str, Link] = {}
        if "faceid" in self.adapter_file:
            needed["face"] = [self.add("MoALoadFaceEmbedding", face_file="face.npy"), 0]
        elif "ipadapter" in self.adapter_file:
            needed["clip_vision"] = [self.base, 2]
        elif self.r.random() < 0.2:
            needed["mask"] = self.mask()
        inputs = {"adapter": [self.adapter, 0], "images": pictures, "word": word, "occurrence": 1}
        return [self.add("SubjectEncode", **inputs, **needed), 0]

    def subject(self, word: str) -> Link:
        """One subject through some of the nodes for subjects."""
        if self.r.random() < 0.1:  # what an earlier workflow saved; there may be none
            return [self.add("MoALoadSubject", subject_file="soak_00001_.safetensors", word=word, occurrence=0), 0]
        made, action = self.encoded(word), self.r.random()
        if action < 0.15:
            along = self.r.choice(("sphere", "straight"))
            made = [self.add("MoASubjectBlend", first=made, second=self.encoded(word), amount=0.4, along=along), 0]
        elif action < 0.3:
            both = {"subjects.subject_0": made, "subjects.subject_1": self.encoded(word)}
            how = self.r.choice(("mean", "norm mean", "concat"))
            made = [self.add("MoASubjectCombine", **both, how=how, weights=self.r.choice(("", "1, 2"))), 0]
        if self.r.random() < 0.1:
            self.add("MoASaveSubject", subject=made, filename_prefix="soak")
        if self.r.random() < 0.4:
            window = {"start_percent": self.r.choice((0.0, 0.3)), "end_percent": self.r.choice((0.2, 0.8, 1.0))}
            region = {"region": self.mask()} if self.r.random() < 0.5 else {}
            strength = self.r.choice((0.0, 0.5, 1.0, 3.0))
            made = [self.add("MoASubjectSettings", subject=made, strength=strength, **window, **region), 0]
        return made

    def applied(self) -> str:
        """Apply MoA with any settings."""
        r, more = self.r, {}
        if r.random() < 0.2:
            factors = {name: r.choice((0.0, 1.0, 2.0)) for name in ("input", "middle", "output")}
            kinds = {"self_attention": 1.0, "cross_attention": r.choice((0.5, 1.0))}
            more["layer_strength"] = [self.add("MoALayerStrength", **factors, **kinds, single=""), 0]
        routers = ("automatic", "automatic", "attention", "constant", "learned", "mask")
        return self.add(
            "ApplyMoA", model=[self.base, 0], adapter=[self.adapter, 0], strength=r.choice((0.5, 0.0, 1.0, 10.0)),
            start_percent=r.choice((0.0, 0.0, 0.15, 0.9)), end_percent=r.choice((1.0, 1.0, 0.5)), router=r.choice(routers),
            pixels=r.choice(("automatic", "all", "1/2", "1/8")), keep_background=r.random() < 0.3, **more,
        )  # fmt: skip

    def sampled(self, seed: int) -> None:
        """Prompts, sampler, and what is shown."""
        r, clip = self.r, [self.base, 1]
        words = r.choice((("man", "woman"), ("man", "woman"), ("man",), ("woman",), ()))
        bound = {f"subjects.subject_{i}": self.subject(word) for i, word in enumerate(words)}
        positive = [self.add("MoATextEncode", clip=clip, text="a man and a woman on a beach", **bound), 0]
        negative = [self.add("CLIPTextEncode", clip=clip, text=""), 0]
        if r.random() < 0.2:
            negative = [self.add("ConditioningZeroOut", conditioning=positive), 0]
        applied, side = self.applied(), r.choice(self.family.sides)
        latent = self.add(
            "EmptyLatentImage", width=side, height=r.choice(self.family.sides), batch_size=r.choice((1, 1, 2))
        )
        samples = self.add(
            "KSampler", model=[applied, 0], positive=positive, negative=negative, latent_image=[latent, 0], seed=seed,
            steps=r.choice((4, 1, 2)), cfg=r.choice((1.0, 2.5)), denoise=1.0, scheduler=r.choice(("normal", "karras")),
            sampler_name=r.choice(("euler", "euler_ancestral", "dpmpp_2m", "uni_pc")),
        )  # fmt: skip
        self.shown([samples, 0], [applied, 1])

    def shown(self, samples: Link, trace: Link) -> None:
        """The picture, or the latent of a base model without a VAE; sometimes the router's map."""
        if self.family is MINI:
            picture = [self.add("VAEDecode", samples=samples, vae=[self.base, 2]), 0]
            self.add("SaveImage", images=picture, filename_prefix="soak")
        else:
            picture = [self.add("EmptyImage", width=64, height=64, batch_size=1, color=0), 0]
            self.add("SaveLatent", samples=samples, filename_prefix="soak")
        if self.r.random() < 0.4:
            mode = self.r.choice(("overlay", "heat map", "contact sheet", "subjects"))
            steps = {"first_step": 0, "last_step": -1, "mask_threshold": 0.5}
            self.add("RouterVisualize", trace=trace, image=picture, mode=mode, layers="all", **steps)

    def trained(self, seed: int) -> None:
        """A step of training on the bundled examples."""
        models = {"model": [self.base, 0], "clip": [self.base, 1], "vae": [self.base, 2], "folder": "moa_example"}
        sizes = {"steps": 1, "batch_size": 2, "micro_batch": 0, "rank": 4, "side": 128, "learning_rate": 1e-4}
        other = {
            "checkpointing": False,
            "licence": "CC0",
            "preview_every": 0,
            "preview_prompts": "",
            "clip_vision_name": "",
        }
        made = self.add("MoATrain", **models, **sizes, **other, seed=seed, name=f"soak_{seed % 3}")
        self.add("MoASaveAdapter", adapter=[made, 0], filename_prefix="soak", precision="fp16")


MISTAKES: dict[str, dict[str, Any]] = {
    "SubjectEncode": {"word": "", "occurrence": 7, "face": None, "clip_vision": None},
    "MoATextEncode": {"text": "a beach"},
    "LoadMoAAdapter": {"adapter_file": "drawn.safetensors", "router_file": "none.safetensors"},
    "SolidMask": {"value": 0.0},
    "MoASaveSubject": {"filename_prefix": "../x"},
    "MoALayerStrength": {"single": "nowhere_9: 2"},
    "MoASubjectCombine": {"weights": "one, two"},
    "LoadImage": {"image": "absent.png"},
    "ApplyMoA": {"strength": -1.0, "router": "mask"},
    "MoATrain": {"folder": "nowhere", "name": "a/../b", "rank": 8},
}
"""Values that a user may set by mistake, by node and input; None disconnects the input."""


def random_workflow(r: random.Random) -> Nodes:
    """One of MoA Mini or of the tiny models; one in five has a mistake, and few train."""
    family = r.choice((MINI, TINY))
    draft, seed = Draft(r, family, r.choice(family.adapters)), r.randrange(2**32)
    draft.trained(seed) if family is MINI and r.random() < 0.04 else draft.sampled(seed)
    if r.random() < 0.2:
        spoil(r, draft.nodes)
    return draft.nodes


def spoil(r: random.Random, nodes: Nodes) -> None:
    """Make one mistake, if the workflow has a node for one."""
    node = r.choice([node for node in nodes.values() if node["class_type"] in MISTAKES])
    name, value = r.choice(list(MISTAKES[node["class_type"]].items()))
    node["inputs"][name] = value
    if value is None:
        del node["inputs"][name]


class FirstChoices(random.Random):
    """Draws no optional node, and the first of everything else."""

    def random(self) -> float:
        return 0.99

    def choice(self, seq: Any) -> Any:
        return seq[0]


def final_workflow(family: Family) -> Nodes:
    """Two subjects with fixed settings, to compare servers."""
    draft = Draft(FirstChoices(), family, family.adapters[0])
    draft.sampled(7)
    return draft.nodes
