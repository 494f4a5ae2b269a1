"""The benchmark's measurements, kept in a file so that several runs make one table."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tabulate import tabulate


@dataclass(frozen=True)
class Measurement:
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
    """Synchronisations with the device beyond the stock model's."""
    kernels: int | None = None
    """Kernels beyond the stock model's."""
    peak_extra_mib: float | None = None
    """The adapter's weights and the activations it adds to the stock model's peak."""
    ratio_spread: float | None = None
    """Distance of the quartiles of `ratio`."""
    seconds_stock: float | None = None

    @property
    def key(self) -> tuple:
        """Identifies the measurement, without its figures."""
        return (self.base, self.size, self.device, self.dtype, *self.variant, self.cfg)

    @property
    def variant(self) -> tuple[str, float | None, int]:
        return (self.mode, self.routed, self.subjects)


def read_measurements(path: Path | None) -> list[Measurement]:
    """Those of a file, if it exists."""
    if path is None or not path.is_file():
        return []
    return [Measurement(**row) for row in json.loads(path.read_text(encoding="utf-8"))]


def write_measurements(path: Path, measurements: Iterable[Measurement]) -> None:
    """JSON, one measurement a line."""
    lines = (json.dumps(asdict(m)) for m in measurements)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def merge(old: Iterable[Measurement], new: Iterable[Measurement]) -> list[Measurement]:
    """New ones replace old ones with the same key; others are appended."""
    return list({m.key: m for m in (*old, *new)}.values())


COLUMNS = (
    "base", "pixels", "mode", "routed", "subjects", "FLOPs with CFG", "without", "host syncs", "kernels more",
    "extra MiB, fp16", "time",
)  # fmt: skip


def cost_table(measurements: list[Measurement]) -> str:
    """Markdown: a line for each variant, with its counts and all its timings."""
    rows = []
    for base, size, *variant in dict.fromkeys((m.base, m.size, *m.variant) for m in measurements):
        same = [m for m in measurements if (m.base, m.size, *m.variant) == (base, size, *variant)]
        by_count = sorted(same, key=lambda m: m.device != "meta")  # timed ones have counts, too
        guided, unguided = (next((m for m in by_count if m.cfg == cfg), None) for cfg in (True, False))
        mode, routed, subjects = variant
        rows.append([
            base, f"{size}²", mode, "" if routed is None else f"{routed:.0%}", subjects,
            formatted(guided, "flops_ratio", ".3f"), formatted(unguided, "flops_ratio", ".3f"),
            formatted(guided, "host_syncs", "d"), formatted(guided, "kernels", "d"),
            formatted(guided, "peak_extra_mib", ".0f"), "; ".join(timing(m) for m in same if m.ratio is not None),
        ])  # fmt: skip
    return tabulate(rows, COLUMNS, tablefmt="github", stralign=None, numalign=None, disable_numparse=True)


def formatted(measurement: Measurement | None, field: str, form: str) -> str:
    """A figure, empty where it was not measured."""
    value = None if measurement is None else getattr(measurement, field)
    return "" if value is None else f"{value:{form}}"


def timing(m: Measurement) -> str:
    """A ratio, the distance of its quartiles, and the device."""
    return f"{m.ratio:.3f}, quartiles {m.ratio_spread:.3f} apart, {m.device} {m.dtype}"
