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
        self.acting: set[int] = set()
        """Numbers of those that change how subjects act."""
        self.barred: dict[int, Tensor] = {}
        """Where subjects must have no share in P frames, (P,REGION²)."""
        self.tables: dict[tuple, Table] = {}

    def number(self, style: Style, strength: float = 1.0, barred: Tensor | None = None) -> int:
        """The number of a style; a strength below 0 and regions of several frames, (P,REGION²), need one, too."""
        acts = style is not PLAIN_STYLE or strength < 0
        if not acts and barred is None:
            return 0
        number = len(self.every)
        self.every.append(style)
        if acts:
            self.acting.add(number)
        if barred is not None:
            self.barred[number] = barred
        return number

    def check(self, layers: Sequence[LayerSpec]) -> None:
        """Raises: ValueError when a style does not fit the adapter's layers, as `Style.factors`."""
        for style in self.every:
            style.factors(layers, 0)

    def table(
        self, terms: Tensor | None, frames: Sequence[int], layers: Sequence[LayerSpec], device: torch.device
    ) -> Table | None:
        """What the styles of a call's rows are; None where none has one.

        Args: terms (R,S,4) on the CPU, as in `PayloadNames.terms`; frames: of the R rows.
        """
        if not self.acting & numbers_in(terms) or terms is None:
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

    def barred_at(self, barred: Tensor | None, terms: Tensor | None, frames: Sequence[int]) -> Tensor | None:
        """Where the subjects of rows must have no share, (R,S,REGION²), with that of each row's frame."""
        if barred is None or terms is None or not self.barred.keys() & numbers_in(terms):
            return barred
        result = barred.clone()
        for row, (numbers, frame) in enumerate(zip(terms[..., 3].long().tolist(), frames, strict=True)):
            for slot, number in enumerate(numbers):
                if number in self.barred:
                    result[row, slot] = self.barred[number][min(frame, len(self.barred[number]) - 1)]
        return result

    def by_frame(self, terms: Tensor | None) -> bool:
        """Whether any subject of these rows, as in `table`, has other features in other frames."""
        return any(self.every[number].frames is not None for number in numbers_in(terms))


def numbers_in(terms: Tensor | None) -> set[int]:
    """The numbers of styles in (R,S,4), as in `PayloadNames.terms`."""
    return set() if terms is None else set(terms[..., 3].long().flatten().tolist())


def frames_shown(views: Sequence[View | None]) -> list[int]:
    """The frame of each row; the first where it is not known."""
    return [0 if view is None else view.picture for view in views]
