"""The evidence page's tables and plot, from what `mini.evidence.run` measured."""

import statistics
from collections.abc import Callable, Iterator

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter
from tabulate import tabulate

from ..data.faces import ROOT
from ..figures import FOLDER
from ..judging.cases import CANDIDATES
from .ablations import ABLATIONS, CLAIMS, CONSISTENT, SINGLE_FASTCOMPOSER
from .run import read_rows

PAGE = ROOT / "docs" / "evidence.md"
CHANCE = 1 / CANDIDATES
GREY = "#777777"
COLOURS = dict(zip(CLAIMS, ("#1f5fa8", "#c8452f", "#777777", "#2b8a5c"), strict=True))
ALIKE = 0.03
"""Identities that are compared as the same."""


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


def figure_of(name: str, key: str, form: str = ".3f") -> Column:
    """A column with the mean and the range of one figure."""
    return name, lambda seeds: mean_and_range(seeds, key, form)


RESULTS: list[Column] = [
    ("seeds", lambda s: str(len(s))),
    ("trained", lambda s: f"{seed_mean(s, 'trained') / 1e6:.2f} M"),
    figure_of("identity", "identity"),
    figure_of("two people", "two_people"),
    figure_of("scene", "scene"),
    figure_of("background change", "background", ".4f"),
    figure_of("R_1 inside", "router_inside"),
    figure_of("R_0 outside", "prior_outside"),
]
USE: list[Column] = [
    figure_of("in use: identity", "identity_in_use"),
    figure_of("background change", "background_in_use", ".4f"),
    figure_of("kept: identity", "identity_kept"),
    figure_of("two people", "two_people_kept"),
    figure_of("background change", "background_kept", ".5f"),
]
ERRORS: list[Column] = [
    figure_of("right person", "denoise_right", ".4f"),
    figure_of("wrong person", "denoise_wrong", ".4f"),
    figure_of("outside", "denoise_outside", ".4f"),
]
TABLES = {"results": RESULTS, "use": USE, "errors": ERRORS}


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


def points_of(name: str) -> list[dict]:
    """Means over a row's trainings of identity and background change, with and without the background kept.

    The rivals have a point for every start, the other rows one in use.
    """
    trainings = [row["points"] or points_in_use(row) for row in read_rows() if row["variant"] == name]
    means = ("identity", "background")
    return [
        {**same[0], **{k: statistics.fmean(p[k] for p in same) for k in means}} for same in zip(*trainings, strict=True)
    ]


def points_in_use(row: dict) -> list[dict]:
    names = (("in_use", False), ("kept", True))
    return [{"kept": kept, **{k: row[f"{k}_{name}"] for k in ("identity", "background")}} for name, kept in names]


def draw_trade_off() -> None:
    """Identity against background change of the rows that carry the claims, with and without the background kept."""
    figure = Figure(figsize=(9, 6))
    axes = figure.subplots()
    for name, colour in COLOURS.items():
        for kept, style in ((False, "o-"), (True, "s--")):
            shown = [p for p in points_of(name) if p["kept"] == kept]
            label = f"{name}, background kept" if kept else name
            changes, identities = ([p[k] for p in shown] for k in ("background", "identity"))
            axes.plot(changes, identities, style, color=colour, lw=1.2, ms=5, label=label)
    axes.axhline(CHANCE, color=GREY, lw=1, ls=":")
    axes.text(axes.get_xlim()[1], CHANCE, "chance ", ha="right", va="bottom", color=GREY, fontsize=8.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8.5)
    tidy(axes, "background change against the base model (mean squared error)", "identity: right person of 20")
    figure.savefig(FOLDER / "evidence_trade_off.png", dpi=110, bbox_inches="tight")


def against_the_rival() -> Iterator[dict[str, str]]:
    """Every point of the rival beside MoA's least background change at no lower identity, both with or both without the
    background kept; nothing before both are measured.
    """
    ours = points_of(CONSISTENT)
    for rival in sorted(points_of(SINGLE_FASTCOMPOSER), key=lambda p: p["kept"]) if ours else []:
        alike = [p for p in ours if p["kept"] == rival["kept"] and p["identity"] >= rival["identity"] - ALIKE]
        least = min(alike, key=lambda p: p["background"], default=None)
        yield {
            "background": "kept" if rival["kept"] else "not kept",
            "the rival's start": f"{rival['start']:g}",
            "identity": f"{rival['identity']:.3f}",
            "background change": f"{rival['background']:.5f}",
            "MoA's start": "not reached" if least is None else f"{least['start']:g}",
            "its identity": "" if least is None else f"{least['identity']:.3f}",
            "its background change": "" if least is None else f"{least['background']:.5f}",
            "ratio": "" if least is None else f"{least['background'] / rival['background']:.2f}",
        }


def main(argv: list[str]) -> None:
    """Write the tables and the plot of what has been measured so far."""
    rows, page = by_ablation(), PAGE.read_text(encoding="utf-8")
    for mark, columns in TABLES.items():
        page = with_table(page, mark, evidence_table(rows, columns))
    rival = tabulate(list(against_the_rival()), headers="keys", tablefmt="github", disable_numparse=True)
    page = with_table(page, "rival", rival)
    draw_trade_off()
    PAGE.write_text(page, encoding="utf-8")
