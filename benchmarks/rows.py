"""The rows of the benchmark: one for each thing measured, kept in a file so that several runs make one table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One variant of one model at one size on one device, against the stock model there. None: not measured."""

    base: str
    size: int
    """Pixels of a side."""
    device: str
    """"meta" where it was counted only."""
    dtype: str
    mode: str
    routed: float | None
    subjects: int
    cfg: bool
    ratio: float | None = None
    """Seconds of a call, as a multiple of the stock model's; the median of pairs."""
    flops_ratio: float | None = None
    host_syncs: int | None = None
    """How often a call waits for the device more than the stock model's."""
    kernels: int | None = None
    """How many more kernels it launches."""
    peak_extra_mib: float | None = None
    """The adapter's weights and what activations it adds to the stock model's peak."""
    ratio_spread: float | None = None
    """Between the quartiles of `ratio`."""
    seconds_stock: float | None = None

    @property
    def key(self) -> tuple:
        """What was measured, without what was found."""
        return (self.base, self.size, self.device, self.dtype, *self.variant, self.cfg)

    @property
    def variant(self) -> tuple[str, float | None, int]:
        return (self.mode, self.routed, self.subjects)


def read_rows(path: Path | None) -> list[Row]:
    """Those of a file, if there is one."""
    if path is None or not path.is_file():
        return []
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """One row a line."""
    lines = (json.dumps(asdict(row)) for row in rows)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def merge(old: Iterable[Row], new: Iterable[Row]) -> list[Row]:
    """The new rows in the place of old ones of the same thing, and after them."""
    return list({row.key: row for row in (*old, *new)}.values())


HEADER = (
    "base", "pixels", "mode", "routed", "subjects", "FLOPs with CFG", "without", "host syncs", "kernels more",
    "extra MiB, fp16", "time",
)  # fmt: skip


def table(rows: list[Row]) -> str:
    """Markdown: a line for each variant, with what was counted and all that was timed of it."""
    lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    for base, size, *variant in dict.fromkeys((r.base, r.size, *r.variant) for r in rows):
        same = [r for r in rows if (r.base, r.size, *r.variant) == (base, size, *variant)]
        by_count = sorted(same, key=lambda r: r.device != "meta")  # timed rows know what was counted of them, too
        guided, alone = (next((r for r in by_count if r.cfg == cfg), None) for cfg in (True, False))
        mode, routed, subjects = variant
        cells = [base, f"{size}²", mode, "" if routed is None else f"{routed:.0%}", subjects]
        cells += [told(guided, "flops_ratio", ".3f"), told(alone, "flops_ratio", ".3f")]
        cells += [told(guided, "host_syncs", "d"), told(guided, "kernels", "d"), told(guided, "peak_extra_mib", ".0f")]
        cells += ["; ".join(timed(r) for r in same if r.ratio is not None)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def told(row: Row | None, field: str, form: str) -> str:
    value = None if row is None else getattr(row, field)
    return "" if value is None else f"{value:{form}}"


def timed(row: Row) -> str:
    """A ratio, how far its quartiles lie apart, and where it was taken."""
    return f"{row.ratio:.3f}, quartiles {row.ratio_spread:.3f} apart, {row.device} {row.dtype}"
