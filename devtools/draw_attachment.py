"""One attention of a block before, with and after MoA, as a figure."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .drawing import HOST, LINE, OURS, arrow, box

WRAPPERS = ("OUTER_SAMPLE", "PREDICT_NOISE", "CALC_COND_BATCH", "APPLY_MODEL", "DIFFUSION_MODEL")
"""In `nodes/host/model/patch.py`, from the outermost to the innermost."""
CAPTURE, BLEND = ("attn1_patch", "attn2_patch"), ("attn1_output_patch", "attn2_output_patch")
"""In `nodes/host/model/unet.py`."""

BEFORE, ATTACHED, BRANCH, DROPPED = 1.25, 4.05, 6.6, 9.4
"""Where the columns of boxes stand, in inches."""
INPUT, NORM, CAPTURED, ATTENTION, BLENDED, RESIDUAL = 5.6, 4.85, 3.95, 2.75, 1.5, 0.5
"""Where the rows stand."""
WIDTH, BOTH = 2.3, BRANCH - ATTACHED + 2.3
MIDDLE = (ATTACHED + BRANCH) / 2


def draw_attachment(file: Path) -> None:
    """Write the figure as PNG."""
    figure = Figure(figsize=(10.7, 7.6), layout="constrained")
    axes = figure.subplots()
    unpatched(axes, BEFORE, "Before", "the cached model")
    patched(axes)
    unpatched(axes, DROPPED, "Dropped", "the clone is released")
    axes.set_xlim(0, 10.65)
    axes.set_ylim(-0.2, 7.3)
    axes.set_aspect("equal")
    axes.axis("off")
    legend = [
        Patch(facecolor=HOST, edgecolor=LINE, label="ComfyUI and the checkpoint"),
        Patch(facecolor=OURS, edgecolor=LINE, label="MoA, on the clone"),
    ]
    axes.legend(handles=legend, loc="lower center", ncols=2, frameon=False, fontsize=10)
    figure.savefig(file, dpi=110)


def panel_title(axes: Axes, x: float, title: str, text: str) -> None:
    axes.text(x, 7.1, title, ha="center", fontsize=14, fontweight="bold")
    axes.text(x, 6.85, text, ha="center", fontsize=10)


def draw_block(axes: Axes, x: float) -> None:
    """What a transformer block does by itself, from its input to the residual sum."""
    box(axes, (x, INPUT), (WIDTH, 0.4), "hidden state, context")
    box(axes, (x, NORM), (WIDTH, 0.4), "norm", colour=HOST)
    text = "queries, keys, values of the\ncheckpoint; the patches of\nother nodes"
    box(axes, (x, ATTENTION), (WIDTH, 1.0), "attention", text, HOST)
    box(axes, (x, RESIDUAL), (WIDTH, 0.4), "+ residual", colour=HOST)
    arrow(axes, (x, INPUT - 0.2), end=(x, NORM + 0.2))


def unpatched(axes: Axes, x: float, title: str, text: str) -> None:
    """A block without patches."""
    panel_title(axes, x, title, text)
    draw_block(axes, x)
    arrow(axes, (x, NORM - 0.2), end=(x, ATTENTION + 0.5))
    arrow(axes, (x, ATTENTION - 0.5), end=(x, RESIDUAL + 0.2))


def patched(axes: Axes) -> None:
    """The same block in the clone, with what MoA adds."""
    panel_title(axes, MIDDLE, "Attached", "the clone that Apply MoA returns")
    box(axes, (MIDDLE, 6.35), (BOTH, 0.6), "wrappers around the U-Net", " · ".join(WRAPPERS), OURS)
    draw_block(axes, ATTACHED)
    box(axes, (ATTACHED, CAPTURED), (WIDTH, 0.7), "capture", ", ".join(CAPTURE), OURS)
    text = "queries of the captured state,\nkeys and values of the subjects;\nrouter: $R_0$ and $R_1$"
    box(axes, (BRANCH, ATTENTION), (WIDTH, 1.0), "personalised branch", text, OURS)
    text = f"{', '.join(BLEND)}\n$R_0$ ⊙ prior + $R_1$ ⊙ personalised"
    box(axes, (MIDDLE, BLENDED), (BOTH, 0.75), "blend", text, OURS)
    arrow(axes, (ATTACHED, NORM - 0.2), end=(ATTACHED, CAPTURED + 0.35))
    arrow(axes, (ATTACHED, CAPTURED - 0.35), end=(ATTACHED, ATTENTION + 0.5))
    arrow(axes, (ATTACHED + WIDTH / 2, CAPTURED), (BRANCH, CAPTURED), end=(BRANCH, ATTENTION + 0.5))
    for x, name in ((ATTACHED, "prior"), (BRANCH, "personalised")):
        arrow(axes, (x, ATTENTION - 0.5), end=(x, BLENDED + 0.375))
        axes.text(x + 0.1, (ATTENTION + BLENDED) / 2 - 0.05, name, va="center", fontsize=9, fontstyle="italic")
    arrow(axes, (ATTACHED, BLENDED - 0.375), end=(ATTACHED, RESIDUAL + 0.2))
