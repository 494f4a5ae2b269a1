"""Figures of one trained adapter on people of the test split: as it was trained, in use, and with the background kept.

As trained is strength 1 from the first step on. In use are the example workflow's settings. A single attention has no
strength, and starts where the others start. Its map for keeping the background is its own attention to the subject's word
(`AttentionGuidance`).
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.tensors import write_tensors
from ....moa_attention.run.guidance import SubjectGuidance
from ..data.faces import WORK
from ..judging.cases import double_cases, make_requests, single_cases
from ..judging.denoising import denoising_errors
from ..judging.evaluator import Evaluator
from ..judging.pipeline import PRIOR_BIAS, START, ImageRequest, MiniPipeline
from .ablations import PINNED, RIVALS, Ablation
from .single_attention import AttentionGuidance

CASES = 100
STARTS = (0.0, 0.1, 0.2, 0.3)
"""Shares of the sampling after which the personalised branch begins."""


class SamplingChoice(NamedTuple):
    """Settings of Apply MoA."""

    prior_bias: float
    start: float
    kept: bool = False
    """Keep background."""

    def options(self, pipeline: MiniPipeline) -> dict[str, Any]:
        """Those of `MiniPipeline.generate`, for one run."""
        layers, guidance = pipeline.adapter.model.config.layers, None
        if self.kept:
            guidance = AttentionGuidance(layers) if self.prior_bias == PINNED else SubjectGuidance(1.0, layers)
        return {"prior_bias": self.prior_bias, "start": self.start, "guidance": guidance}


def in_use(ablation: Ablation, start: float = START, kept: bool = False) -> SamplingChoice:
    """The settings in use of a row."""
    bias = ablation.prior_bias if ablation.single else PRIOR_BIAS
    return SamplingChoice(bias, start, kept)


class Measures:
    """One adapter, and the cases of every row."""

    def __init__(self, adapter: MoAAdapter) -> None:
        self.adapter, self.pipeline, self.evaluator = adapter, MiniPipeline(adapter), Evaluator()
        self.singles = single_cases(self.evaluator.candidates, CASES)
        self.doubles = double_cases(self.evaluator.candidates, CASES // 2)
        self.requests = make_requests(self.pipeline, self.evaluator.identities, self.singles)
        self.prior = prior_images(self.pipeline, self.requests)
        self.found: dict[SamplingChoice, dict[str, float]] = {}
        """Of one person: a row has some settings more than once."""

    def row(self, ablation: Ablation) -> dict[str, Any]:
        """All figures of a row; `points` are those of `STARTS`, for the rivals."""
        trained, kept = SamplingChoice(ablation.prior_bias, 0.0), in_use(ablation, kept=True)
        return {
            **self.of_one(trained),
            **{f"{name}_in_use": value for name, value in self.of_one(in_use(ablation)).items()},
            **{f"{name}_kept": value for name, value in self.of_one(kept).items()},
            "two_people": self.of_two(trained),
            "two_people_kept": self.of_two(kept),
            **denoising_errors(self.adapter, ablation.prior_bias),
            "points": [self.point(ablation, *each) for each in product(STARTS, (False, True))]
            if ablation.name in RIVALS
            else [],
        }

    def point(self, ablation: Ablation, start: float, kept: bool) -> dict[str, float]:
        """Identity and background change in use, from another start."""
        found = self.of_one(in_use(ablation, start, kept))
        return {"start": start, "kept": kept, "identity": found["identity"], "background": found["background"]}

    def of_one(self, sampling: SamplingChoice) -> dict[str, float]:
        """Identity, scene, background and router on images of one person."""
        if sampling not in self.found:
            self.found[sampling] = self.measure_one(sampling)
        return self.found[sampling]

    def measure_one(self, sampling: SamplingChoice) -> dict[str, float]:
        images, maps = self.pipeline.generate(self.requests, **sampling.options(self.pipeline))
        inside, outside = self.evaluator.router_split(images, maps)
        return {
            "identity": self.evaluator.identity(images, self.singles),
            "scene": self.evaluator.scene(images, self.singles),
            "background": self.evaluator.background_change(images, self.prior),
            "router_inside": inside,
            "prior_outside": 1 - outside,
        }

    def of_two(self, sampling: SamplingChoice) -> float:
        """Share of images of two people in which both are right and in their places."""
        requests = make_requests(self.pipeline, self.evaluator.identities, self.doubles)
        images, _ = self.pipeline.generate(requests, **sampling.options(self.pipeline))
        return self.evaluator.identity(images, self.doubles)


def prior_images(pipeline: MiniPipeline, requests: Sequence[ImageRequest]) -> Tensor:
    """The base model's own images: the same for every row, hence generated once and kept in `.mini/`."""
    kept = WORK / "evidence_prior.safetensors"
    if not kept.is_file():
        write_tensors({"pictures": pipeline.generate_prior(requests)}, kept, {})
    return load_file(kept)["pictures"]
