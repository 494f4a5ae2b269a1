"""The parts that workflows share: loaders, subjects, prompts, samplers and pictures of one family."""

from __future__ import annotations

import re
from typing import Any

from .families import Family
from .template import Output, Template


class Workflow(Template):
    """A template that begins with the loaders of its family.

    Args: files: what the family's models need besides, by folder; MoA Mini's come with the extension.
    """

    def __init__(self, family: Family, note: str, **files: str) -> None:
        more = "".join(f"\n- `models/{folder}`: {file}" for folder, file in files.items())
        super().__init__(note=unwrapped(f"{note}\n\n{family.note.format(more=more, loaders=len(files) + 3)}"))
        self.family = family
        if family.checkpoint:
            model = self.add("CheckpointLoaderSimple", "Your checkpoint", ckpt_name=family.checkpoint)
        else:
            model = self.add("MoALoadMini", "Base model: MoA Mini", model="mini")
        self.model, self.clip, self.vae = (Output(model.node, i) for i in range(3))
        vision = [self.add("CLIPVisionLoader", "Image encoder", clip_name=family.vision)] if family.vision else []
        self.vision = dict(zip(["clip_vision"], vision, strict=False))
        self.adapter = self.add("LoadMoAAdapter", "The adapter", adapter_file=family.adapter)
        self.group("1  Models", [model, *vision, self.adapter])

    def picture(self, title: str, file: str) -> Output:
        """Load Image."""
        return self.add("LoadImage", title, image=file)

    def encode(self, title: str, images: Output, word: str, adapter: Output | None = None) -> Output:
        """The subject of pictures."""
        return self.add(
            "SubjectEncode",
            title,
            adapter=adapter or self.adapter,
            images=images,
            word=word,
            occurrence=1,
            **self.vision,
        )

    def each(self, title: str, values: list[Output]) -> Output:
        """A list: every node behind it runs once for each of its entries."""
        return self.add("CreateList", title, **{f"inputs.input{i}": value for i, value in enumerate(values)})

    def words(self, text: str) -> Output:
        """A text for several prompts."""
        return self.add("PrimitiveStringMultiline", "The prompt", value=text)

    def prompt(self, text: str | Output, *subjects: Output, title: str = "The prompt") -> Output:
        """A prompt with its subjects."""
        bound = {f"subjects.subject_{i}": subject for i, subject in enumerate(subjects)}
        return self.add("MoATextEncode", title, clip=self.clip, text=text, **bound)

    def plain_prompt(self, title: str, text: str | Output) -> Output:
        """A prompt without subjects."""
        return self.add("CLIPTextEncode", title, clip=self.clip, text=text)

    def negative(self) -> Output:
        """The negative prompt."""
        return self.plain_prompt("Negative prompt", self.family.negative)

    def apply(self, title: str = "Apply MoA", **changed: Any) -> Output:
        """The model with the adapter; output 1 is its trace."""
        settings = {
            "model": self.model,
            "adapter": self.adapter,
            **self.family.apply,
            "end_percent": 1.0,
            "router": "automatic",
        }
        return self.add("ApplyMoA", title, **settings | changed)

    def latent(self, pictures: int = 1) -> Output:
        """An empty latent."""
        side = self.family.side
        return self.add("EmptyLatentImage", "Size and number", width=side, height=side, batch_size=pictures)

    def sample(
        self, title: str, model: Output, positive: Output, negative: Output, latent: Output, **changed: Any
    ) -> list[Output]:
        """KSampler and VAE Decode."""
        settings = {"seed": 7, **self.family.sampling, "denoise": 1.0, **changed}
        sampler = self.add(
            "KSampler", title, model=model, positive=positive, negative=negative, latent_image=latent, **settings
        )
        return [sampler, self.decode(sampler)]

    def decode(self, latent: Output) -> Output:
        """VAE Decode."""
        return self.add("VAEDecode", "Decode", samples=latent, vae=self.vae)

    def save(self, title: str, pictures: Output) -> Output:
        """Save Image."""
        return self.add("SaveImage", title, images=pictures, filename_prefix="moa")

    def router_map(self, apply: Output, pictures: Output, title: str = "Router's map") -> Output:
        """Visualize MoA Router; output 1 is the mask."""
        return self.add(
            "RouterVisualize", title, trace=Output(apply.node, 1), image=pictures, mode="overlay", layers="trained",
            first_step=0, last_step=-1, mask_threshold=0.5,
        )  # fmt: skip


def unwrapped(text: str) -> str:
    """Markdown with each paragraph and each entry of a list on one line: the page drops some line breaks instead of showing a space."""
    return re.sub(r"(?<!\n)\n(?!\n|- |\d\. )", " ", text)
