"""The evidence page's tables and plots, from the rows that `mini.evidence.run` measured."""

import statistics
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from tabulate import tabulate

from ..data.faces import ROOT
from ..figures import FOLDER
from ..judging.cases import CANDIDATES
from .ablations import ABLATIONS
from .run import read_rows

PAGE = ROOT / "docs" / "evidence.md"
CHANCE = 1 / CANDIDATES
BLUE, RED, GREY = "#1f5fa8", "#c8452f", "#777777"
SWEEP = ("λ_r 3e-4", "λ_r 1e-3", "full", "λ_r 1e-2")
"""`full` is the one at 3e-3."""


def by_ablation() -> dict[str, list[dict]]:
    """The rows of every ablation that has any, in the order of the page."""
    rows = read_rows()
    found = {a.name: [r for r in rows if r["variant"] == a.name] for a in ABLATIONS}
    return {name: seeds for name, seeds in found.items() if seeds}


def seed_mean(seeds: list[dict], key: str) -> float:
    return statistics.fmean(seed[key] for seed in seeds)


def mean_and_range(seeds: list[dict], key: str, form: str = ".3f") -> str:
    """The mean, and the lowest and highest where there is more than one."""
    values = [seed[key] for seed in seeds]
    spread = f" ({min(values):{form}}–{max(values):{form}})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{spread}"


Column = tuple[str, Callable[[list[dict]], str]]
"""Its name, and its cell for the training runs of one row."""
RESULTS: list[Column] = [
    ("seeds", lambda s: str(len(s))),
    ("trained", lambda s: f"{seed_mean(s, 'trained') / 1e6:.2f} M"),
    ("identity", lambda s: mean_and_range(s, "identity")),
    ("two people", lambda s: mean_and_range(s, "two_people")),
    ("scene", lambda s: mean_and_range(s, "scene")),
    ("background change", lambda s: mean_and_range(s, "background", ".4f")),
    ("R_1 inside", lambda s: mean_and_range(s, "router_inside")),
    ("R_0 outside", lambda s: mean_and_range(s, "prior_outside")),
]
ERRORS: list[Column] = [
    ("right person", lambda s: mean_and_range(s, "denoise_right", ".4f")),
    ("wrong person", lambda s: mean_and_range(s, "denoise_wrong", ".4f")),
    ("outside", lambda s: mean_and_range(s, "denoise_outside", ".4f")),
]


def evidence_table(rows: dict[str, list[dict]], columns: list[Column]) -> str:
    """Markdown, without the padding that would change every line when a row is added."""
    cells = [(name, *(show(seeds) for _, show in columns)) for name, seeds in rows.items()]
    head = ("", *(name for name, _ in columns))
    return tabulate(cells, head, tablefmt="github", stralign=None, disable_numparse=True)


def with_table(page: str, mark: str, table: str) -> str:
    """The page with this table between `<!-- mark -->` and the next `<!-- end -->`."""
    before, start, rest = page.partition(f"<!-- {mark} -->\n")
    return f"{before}{start}{table}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def tidy(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)


def trade_off(rows: dict[str, list[dict]]) -> None:
    """Identity against background change. Rows have letters, from the highest identity down."""
    figure = Figure(figsize=(9, 8))
    axes = figure.subplots()
    ordered = sorted(rows.items(), key=lambda item: -seed_mean(item[1], "identity"))
    for number, (name, seeds) in enumerate(ordered):
        colour, letter = RED if name == "full" else BLUE, chr(ord("a") + number)
        axes.scatter([s["background"] for s in seeds], [s["identity"] for s in seeds], color=colour, s=26, zorder=3)
        centre = (seed_mean(seeds, "background"), seed_mean(seeds, "identity"))
        for seed in seeds:  # a star of several trainings
            axes.plot([centre[0], seed["background"]], [centre[1], seed["identity"]], color=colour, lw=0.8)
        aside = ((5, 4), (-11, 4), (-11, -10), (5, -10))[number % 4]
        axes.annotate(letter, centre, xytext=aside, textcoords="offset points", fontsize=9, color=colour)
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
    """The effect of λ_r."""
    weights = [3e-4, 1e-3, 3e-3, 1e-2]
    figure = Figure(figsize=(7, 4))
    axes = figure.subplots()
    lines = [
        ("identity", RED, "identity"),
        ("prior_outside", BLUE, "R_0 outside"),
        ("router_inside", GREY, "R_1 inside"),
    ]
    for key, colour, label in lines:
        values = [seed_mean(rows[name], key) for name in SWEEP]
        axes.plot(weights, values, "o-", color=colour)
        axes.annotate(label, (weights[-1], values[-1]), xytext=(8, -3), textcoords="offset points", color=colour)
    axes.set_xscale("log")
    axes.set_ylim(0, 1)
    tidy(axes, "λ_r", "")
    figure.savefig(FOLDER / "evidence_router_loss.png", dpi=110, bbox_inches="tight")


def main(argv: list[str]) -> None:
    """Write the tables and the plots of the rows measured so far."""
    rows, page = by_ablation(), PAGE.read_text(encoding="utf-8")
    for mark, columns in (("results", RESULTS), ("errors", ERRORS)):
        page = with_table(page, mark, evidence_table(rows, columns))
    PAGE.write_text(page, encoding="utf-8")
    trade_off(rows)
    if all(name in rows for name in SWEEP):
        sweep(rows)
