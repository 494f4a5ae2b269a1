"""Figures of one trained adapter: as it was trained, and in use.

As trained: strength 1 from the first step on. In use: the example workflow's settings; a single fine-tuned attention has
no strength and starts where the others start.
"""

from collections.abc import Callable, Iterator, Sequence

from safetensors.torch import load_file
from torch import Tensor

from ....moa_attention.adapters.moa import MoAAdapter
from ....moa_attention.formats.tensors import write_tensors
from ..data.faces import WORK
from ..judging.cases import double_cases, make_requests, single_cases
from ..judging.denoising import denoising_errors
from ..judging.evaluator import Evaluator
from ..judging.pipeline import PRIOR_BIAS, START, ImageRequest, MiniPipeline
from .ablations import ABLATIONS, PINNED, Ablation

CASES = 100
IN_USE = ("full", "no router loss", "single fine-tuned attention", "single, FastComposer's losses")
"""Ablations that are compared in use."""


def measure_as_trained(adapter: MoAAdapter, prior_bias: float) -> dict[str, float]:
    """One person, two people, and the errors of the predicted noise."""
    pipeline, evaluator = MiniPipeline(adapter), Evaluator()
    doubles = double_cases(evaluator.candidates, CASES // 2)
    two, _ = pipeline.generate(make_requests(pipeline, evaluator.identities, doubles), prior_bias, 0.0)
    return {
        **measure_singles(pipeline, evaluator, prior_bias, 0.0),
        "two_people": evaluator.identity(two, doubles),
        **denoising_errors(adapter, prior_bias),
    }


def measure_in_use(
    train: Callable[[Ablation, int], MoAAdapter], names: Sequence[str] = IN_USE
) -> Iterator[dict[str, object]]:
    """A row for every training of the named ablations.

    Args: train: gives the adapter of an ablation and a seed.
    """
    evaluator = Evaluator()
    for ablation in (a for a in ABLATIONS if a.name in names):
        prior_bias = PINNED if ablation.prior_bias == PINNED else PRIOR_BIAS
        for seed in range(ablation.seeds):
            found = measure_singles(MiniPipeline(train(ablation, seed)), evaluator, prior_bias, START)
            yield {
                "": ablation.name,
                "seed": seed,
                "identity": f"{found['identity']:.3f}",
                "scene": f"{found['scene']:.3f}",
                "background change": f"{found['background']:.4f}",
            }


def measure_singles(pipeline: MiniPipeline, evaluator: Evaluator, prior_bias: float, start: float) -> dict[str, float]:
    """Identity, scene, background and router on images of one person of the test split."""
    cases = single_cases(evaluator.candidates, CASES)
    requests = make_requests(pipeline, evaluator.identities, cases)
    ours, maps = pipeline.generate(requests, prior_bias, start)
    inside, outside = evaluator.router_split(ours, maps)
    return {
        "identity": evaluator.identity(ours, cases),
        "scene": evaluator.scene(ours, cases),
        "background": evaluator.background_change(ours, prior_images(pipeline, requests)),
        "router_inside": inside,
        "prior_outside": 1 - outside,
    }


def prior_images(pipeline: MiniPipeline, requests: Sequence[ImageRequest]) -> Tensor:
    """The base model's own images: the same for every row, hence generated once and kept in `.mini/`."""
    kept = WORK / "evidence_prior.safetensors"
    if not kept.is_file():
        write_tensors({"pictures": pipeline.generate_prior(requests)}, kept, {})
    return load_file(kept)["pictures"]
