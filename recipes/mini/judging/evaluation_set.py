"""What every evaluation of MoA Mini measures on: cases of one person and of two, and the base model's own images."""

from typing import NamedTuple

from torch import Tensor

from .cases import SceneCase, double_cases, make_requests, single_cases
from .evaluator import Evaluator
from .kept import KeptPictures
from .pipeline import ImageRequest, MiniPipeline


class EvaluationSet(NamedTuple):
    """People of one split, with the same seeds for every setting."""

    evaluator: Evaluator
    singles: list[SceneCase]
    doubles: list[SceneCase]
    single_requests: list[ImageRequest]
    double_requests: list[ImageRequest]
    prior: Tensor
    """The base model's images of `single_requests`."""

    @property
    def size(self) -> str:
        """As a line above a table."""
        return f"{len(self.singles)} pictures of one person, {len(self.doubles)} of two"


def prepare(
    pipeline: MiniPipeline, singles: int, doubles: int, split: str = "test", kept: KeptPictures | None = None
) -> EvaluationSet:
    """Requests for so many images of one person and of two.

    Args: kept: generates the base model's own images, if the evaluation keeps its pictures.
    """
    evaluator = Evaluator(split)
    one, two = single_cases(evaluator.candidates, singles), double_cases(evaluator.candidates, doubles)
    single_requests, double_requests = (make_requests(pipeline, evaluator.identities, cases) for cases in (one, two))
    prior = (kept or pipeline).generate_prior(single_requests)
    return EvaluationSet(evaluator, one, two, single_requests, double_requests, prior)
