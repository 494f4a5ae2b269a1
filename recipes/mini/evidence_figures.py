"""Writes the evidence page's table into it, and its plots, from what `mini.evidence` measured."""

import statistics
from collections.abc import Callable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from .ablations import VARIANTS
from .cases import LINE_UP
from .evidence import read_rows
from .faces import ROOT
from .figures import FOLDER

PAGE = ROOT / "docs" / "evidence.md"
CHANCE = 1 / LINE_UP
BLUE, RED, GREY = "#1f5fa8", "#c8452f", "#777777"
SWEEP = ("λ_r 3e-4", "λ_r 1e-3", "full", "λ_r 1e-2")
"""`full` is the one at 3e-3."""


def by_variant() -> dict[str, list[dict]]:
    """The rows of every variant that has any, in the order of the page."""
    rows = read_rows()
    found = {v.name: [r for r in rows if r["variant"] == v.name] for v in VARIANTS}
    return {name: seeds for name, seeds in found.items() if seeds}


def mean(seeds: list[dict], key: str) -> float:
    return statistics.fmean(seed[key] for seed in seeds)


def told(seeds: list[dict], key: str, form: str = ".3f") -> str:
    """The mean, and the lowest and highest where there is more than one."""
    values = [seed[key] for seed in seeds]
    spread = f" ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{spread}"


COLUMNS: list[tuple[str, Callable[[list[dict]], str]]] = [
    ("seeds", lambda s: str(len(s))),
    ("trained", lambda s: f"{mean(s, 'trained') / 1e6:.2f} M"),
    ("identity", lambda s: told(s, "identity")),
    ("two people", lambda s: told(s, "two_people")),
    ("place", lambda s: told(s, "scene")),
    ("background change", lambda s: told(s, "background", ".4f")),
    ("R_1 inside", lambda s: told(s, "router_inside")),
    ("R_0 outside", lambda s: told(s, "prior_outside")),
    ("error, right person", lambda s: told(s, "denoise_right", ".4f")),
    ("wrong person", lambda s: told(s, "denoise_wrong", ".4f")),
    ("outside", lambda s: told(s, "denoise_outside", ".4f")),
]


def table(rows: dict[str, list[dict]]) -> str:
    """Markdown."""
    lines = ["| | " + " | ".join(name for name, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, seeds in rows.items():
        lines.append(f"| {name} | " + " | ".join(show(seeds) for _, show in COLUMNS) + " |")
    return "\n".join(lines)


def tidy(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def trade_off(rows: dict[str, list[dict]]) -> None:
    """Identity against background change: what one pays for whom. Rows have letters, from the best likeness down."""
    figure, axes = plt.subplots(figsize=(9, 8))
    ordered = sorted(rows.items(), key=lambda item: -mean(item[1], "identity"))
    for number, (name, seeds) in enumerate(ordered):
        colour, letter = RED if name == "full" else BLUE, chr(ord("a") + number)
        axes.scatter([s["background"] for s in seeds], [s["identity"] for s in seeds], color=colour, s=26, zorder=3)
        place = (mean(seeds, "background"), mean(seeds, "identity"))
        for seed in seeds:  # a star of several trainings
            axes.plot([place[0], seed["background"]], [place[1], seed["identity"]], color=colour, lw=0.8)
        aside = ((5, 4), (-11, 4), (-11, -10), (5, -10))[number % 4]
        axes.annotate(letter, place, xytext=aside, textcoords="offset points", fontsize=9, color=colour)
        key = (1.03, 1 - 0.045 * number)
        axes.annotate(f"{letter}  {name}", key, xycoords="axes fraction", va="top", fontsize=8.5, color=colour)
    axes.axhline(CHANCE, color=GREY, lw=1, ls=":")
    axes.text(axes.get_xlim()[1], CHANCE, "chance ", ha="right", va="bottom", color=GREY, fontsize=8.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator([0.005, 0.01, 0.02, 0.03, 0.04]))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    tidy(axes, "background change against the base model (mean squared error)", "identity: right person of 20")
    figure.savefig(FOLDER / "evidence_trade_off.png", dpi=110, bbox_inches="tight")


def sweep(rows: dict[str, list[dict]]) -> None:
    """What λ_r does."""
    weights = [3e-4, 1e-3, 3e-3, 1e-2]
    figure, axes = plt.subplots(figsize=(7, 4))
    lines = [
        ("identity", RED, "identity"),
        ("prior_outside", BLUE, "R_0 outside"),
        ("router_inside", GREY, "R_1 inside"),
    ]
    for key, colour, label in lines:
        values = [mean(rows[name], key) for name in SWEEP]
        axes.plot(weights, values, "o-", color=colour)
        axes.annotate(label, (weights[-1], values[-1]), xytext=(8, -3), textcoords="offset points", color=colour)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    tidy(axes, "λ_r", "")
    figure.savefig(FOLDER / "evidence_router_loss.png", dpi=110, bbox_inches="tight")


def main(argv: list[str]) -> None:
    """Everything; what has no figures yet is left out."""
    rows = by_variant()
    before, _, rest = PAGE.read_text(encoding="utf-8").partition("<!-- table -->")
    after = rest.partition("<!-- end -->")[2]
    PAGE.write_text(f"{before}<!-- table -->\n{table(rows)}\n<!-- end -->{after}", encoding="utf-8")
    trade_off(rows)
    if all(name in rows for name in SWEEP):
        sweep(rows)
