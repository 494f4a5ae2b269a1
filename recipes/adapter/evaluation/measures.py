"""The numbers of an evaluation: functions of tensors, each with its definition and where it comes from.

Pictures are (3,H,W) in [0,1], masks (H,W) bool, embeddings of any length. None means: not defined for this picture.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two embeddings: (E,) (E,) -> -1..1."""
    return float(F.cosine_similarity(a, b, dim=0))


def match(found: Tensor, references: Tensor) -> list[int | None]:
    """Assign found faces to references: the most similar pair first, then the next among the rest (as FastComposer does).

    Args: found (N,E), references (S,E). Returns: for each reference a row of `found`, None when no face is left.
    """
    alike = F.normalize(references, dim=1) @ F.normalize(found, dim=1).T  # (S,N)
    owners: list[int | None] = [None] * len(references)
    for _ in range(min(alike.shape)):
        reference, face = divmod(int(alike.argmax()), alike.shape[1])
        owners[reference] = face
        alike[reference], alike[:, face] = -torch.inf, -torch.inf
    return owners


def identity(found: Tensor, references: Tensor) -> float:
    """Identity preservation: cosine of a face's embedding with its reference's, at least 0; 0 for a face that is missing;
    of several subjects the smallest (FastComposer's protocol).

    Args: found (N,E), references (S,E). With one subject the protocol takes the largest face: give only that.
    """
    owners = match(found, references)
    return min(0.0 if k is None else max(0.0, cosine(found[k], r)) for k, r in zip(owners, references, strict=True))


def recognised(found: Tensor, references: Tensor, within: float) -> float:
    """1 when every subject's face is nearer to its reference than `within`, else 0 (ours; dlib's threshold is 0.6).

    Unlike a cosine of descriptors that all have similar directions, it is easy to read.
    """
    owners = match(found, references)
    near = [k is not None and float((found[k] - r).norm()) < within for k, r in zip(owners, references, strict=True)]
    return float(all(near))


def background_change(picture: Tensor, prior: Tensor, outside: Tensor) -> float | None:
    """Mean squared error against the base model's picture of the same prompt and seed, outside the subjects (ours).

    None when there is no outside.
    """
    return float((picture - prior).square()[:, outside].mean()) if outside.any() else None


def background_variance(pictures: Sequence[Tensor], outside: Tensor) -> float | None:
    """Variance of a pixel over pictures of different subjects, same prompt and seed, outside all of them (ours).

    Unbiased, mean over pixels and colours. None for fewer than two pictures, or when there is no outside.
    """
    if len(pictures) < 2 or not outside.any():
        return None
    return float(torch.stack([p[:, outside] for p in pictures]).var(dim=0).mean())


def mean_inside(values: Tensor, region: Tensor) -> float | None:
    """The mean of a map (H,W) over a region; None when the region is empty.

    Of R_1 inside, and of R_0 = 1 − R_1 outside the subjects, it measures whether the router divides the picture as the
    paper describes (section 3; as a number ours).
    """
    return float(values[region].mean()) if region.any() else None


def copy_paste(picture: Tensor, reference: Tensor, other: Tensor) -> float | None:
    """How much nearer a picture is to the reference than to another picture of the same subject:
    (θ(picture, other) − θ(picture, reference)) / θ(reference, other), θ an angle between embeddings (MultiID-Bench's idea).

    1 for the reference itself, -1, the minimum, for the other picture, 0 at equal distance. None when the two pictures have
    the same embedding.
    """
    apart = angle(reference, other)
    return None if apart < 1e-3 else (angle(picture, other) - angle(picture, reference)) / apart


def angle(a: Tensor, b: Tensor) -> float:
    """Between two embeddings, in radians: (E,) (E,) -> 0..π"""
    a, b = F.normalize(a.double(), dim=0), F.normalize(b.double(), dim=0)
    # Unlike the arc cosine, exact for vectors that are nearly the same.
    return float(2 * torch.atan2((a - b).norm(), (a + b).norm()))
