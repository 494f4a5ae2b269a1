"""One subject out of several: encodings of the same subject combined, two subjects blended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ....moa_attention.formats.subject import TOKENS
from ....moa_attention.subjects.mixing import BlendPath, CombineMode, blend, combine, repeat_to_common_width
from ...sockets import Subject
from ..prompts.tiles import check_no_tiles


def combine_subjects(subjects: Sequence[Subject], mode: CombineMode, weights: str) -> Subject:
    """Encodings of the same subject as one, with the word and the settings of the first; absent ones do not count.

    Args: weights: as in `read_weights`, one for each subject.
    Raises: ValueError when there is none, when adapters or weights differ, or when "concat" does not apply; as `mixed`.
    """
    if not subjects:
        raise ValueError(
            "'Combine Pictures (MoA)' has nothing to combine. Connect two or more encodings of the same subject."
        )
    if all(s.absent for s in subjects):
        return subjects[0]
    check_same_encoder(subjects)
    if mode == "concat" and not next(s for s in subjects if not s.absent).tokens:
        raise ValueError(
            "'concat' joins image tokens, and this adapter has none: it encodes a subject as one feature. In 'Combine Pictures "
            "(MoA)', choose 'mean' or 'norm mean'."
        )
    numbers = read_weights(weights, len(subjects), mode)
    present, used = zip(*[(s, w) for s, w in zip(subjects, numbers, strict=True) if not s.absent], strict=True)
    return mixed(present[0], combine([s.features for s in present], used, mode))


def read_weights(text: str, count: int, mode: CombineMode) -> list[float]:
    """'1, 0.5' -> [1.0, 0.5]; empty text gives equal weights.

    Raises: ValueError when the text is not `count` numbers, or when the mode has no weights.
    """
    if not text.strip():
        return [1.0] * count
    if mode == "concat":
        raise ValueError("'concat' takes no weights. Clear 'weights', or choose 'mean' or 'norm mean'.")
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise ValueError(f"'weights' must be numbers separated by commas, such as '1, 0.5'; found '{text}'.") from error
    if len(weights) != count:
        raise ValueError(
            f"'weights' must have {count} numbers, one for each connected subject; found {len(weights)}: '{text}'."
        )
    return weights


def blend_subjects(first: Subject, second: Subject, amount: float, path: BlendPath) -> Subject:
    """A subject between two, with the word and the settings of the first; if one is absent, the other.

    Raises: ValueError when they were encoded for different adapters; as `mixed`.
    """
    check_same_encoder((first, second))
    if first.absent:
        return replace(first, features=second.features, tokens=second.tokens)
    if second.absent:
        return first
    one, other = repeat_to_common_width([first.features, second.features])
    return mixed(first, blend(one, other, amount, path))


def mixed(first: Subject, features: Tensor) -> Subject:
    """The first subject with mixed features.

    Raises: ValueError when these are not finite, or have more image tokens than a subject file may have.
    """
    if not features.isfinite().all():
        raise ValueError(
            f"Mixing the features of '{first.word}' gives NaN or infinity. Choose smaller weights, and encode the pictures again."
        )
    made = first.with_features(features)
    if made.tokens > TOKENS:
        raise ValueError(
            f"'{first.word}' would have {made.tokens} image tokens, allowed are {TOKENS}. Combine fewer pictures, or choose 'mean'."
        )
    return made


def check_same_encoder(subjects: Sequence[Subject]) -> None:
    """Raises: ValueError when the features of subjects cannot be mixed."""
    check_no_tiles(subjects)
    by_frame = [s.word for s in subjects if len(s.features) > 1]
    if by_frame:
        raise ValueError(
            f"'{by_frame[0]}' has a picture for each frame, which is not mixed with others. Choose another 'combine' in 'Encode Subject "
            "(MoA)'."
        )
    encoders = sorted({s.encoder for s in subjects})
    if len(encoders) > 1:
        raise ValueError(
            f"The subjects were encoded for different adapters: {' and '.join(map(repr, encoders))}. Encode all of them with the "
            "adapter of one 'Load MoA Adapter'."
        )
