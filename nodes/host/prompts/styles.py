"""The styles of a run's image prompts, by numbers that travel with the rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ....moa_attention.method.spec import LayerSpec
from ....moa_attention.run.emphasis import PLAIN_STYLE, Style, Table, tabulate_styles
from ....moa_attention.run.view import View


class NumberedStyles:
    """Of one run. The number 0 is that of subjects without one."""

    def __init__(self) -> None:
        self.every: list[Style] = [PLAIN_STYLE]
        self.tables: dict[tuple, Table] = {}

    def number(self, style: Style, strength: float = 1.0) -> int:
        """The number of a style; a strength below 0 needs one, too."""
        if style is PLAIN_STYLE and strength >= 0:
            return 0
        self.every.append(style)
        return len(self.every) - 1

    def check(self, layers: Sequence[LayerSpec]) -> None:
        """Raises: ValueError when a style does not fit the adapter's layers, as `Style.factors`."""
        for style in self.every:
            style.factors(layers, 0)

    def table(
        self, terms: Tensor | None, frames: Sequence[int], layers: Sequence[LayerSpec], device: torch.device
    ) -> Table | None:
        """What the styles of a call's rows are; None where none has one.

        Args: terms (R,S,4) on the CPU, as in `conditioning.TERMS`; frames: of the R rows.
        """
        if terms is None or not terms[..., 3].any():
            return None
        numbers = tuple(map(tuple, terms[..., 3].long().tolist()))
        key = (numbers, *frames, device)
        if key not in self.tables:
            styles = [[self.every[n] for n in row] for row in numbers]
            self.tables[key] = tabulate_styles(styles, frames, layers, device)
        return self.tables[key]

    def features(self, features: Tensor, terms: Tensor | None, frames: Sequence[int]) -> Tensor:
        """The features of rows (R,S,F), with those of each row's frame."""
        if not self.by_frame(terms):
            return features
        result, numbers = features.clone(), terms[..., 3].long().tolist() if terms is not None else []
        for row, (of_row, frame) in enumerate(zip(numbers, frames, strict=True)):
            for slot, number in enumerate(of_row):
                pictures = self.every[number].frames
                if pictures is not None:
                    own = pictures[min(frame, len(pictures) - 1)]
                    result[row, slot] = own.repeat(features.shape[-1] // len(own))
        return result

    def by_frame(self, terms: Tensor | None) -> bool:
        """Whether any subject of these rows, as in `table`, has other features in other frames."""
        numbers = set() if terms is None else set(terms[..., 3].long().flatten().tolist())
        return any(self.every[number].frames is not None for number in numbers)


def frames_shown(views: Sequence[View | None]) -> list[int]:
    """The frame of each row; the first where it is not known."""
    return [0 if view is None else view.picture for view in views]
