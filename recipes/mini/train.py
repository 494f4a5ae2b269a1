"""Makes MoA Mini from nothing, stage by stage: `python dev.py train-mini`.

Takes hours on a CPU; training runs on the host's GPU where there is one. Finished stages are skipped, and a killed stage
resumes from its own checkpoint. Intermediate files lie in `.mini/`, the shipped ones in `weights/mini/`. Delete `.mini/`
to start over.
"""

import argparse
import importlib
import json
from typing import NamedTuple

from .data.faces import WEIGHTS, WORK


class Stage(NamedTuple):
    """One step of the recipe."""

    module: str
    """Below this package; its `main` runs the stage."""
    task: str
    arguments: tuple[str, ...] = ()


STAGES = {
    "faces": Stage("data.faces", "rasterise the people"),
    "dataset": Stage("data.dataset", "compose and caption the pictures"),
    "latents": Stage("data.latents", "compute the latent space"),
    "vae": Stage("model.vae", "train the decoder"),
    "base": Stage("model.base", "train the text encoder and the U-Net"),
    "decoder": Stage(
        "model.vae",
        "train the decoder further, on the base model's predictions",
        ("--base", str(WEIGHTS), "--minutes", "38"),
    ),
    "style": Stage("model.style", "train the style LoRA"),
    "control": Stage("model.control", "train the ControlNet"),
    "encoder": Stage("model.encoder", "pretrain the adapter's image encoder"),
    "adapter": Stage("model.adapter", "train the adapter"),
    "judges": Stage("judging.judges", "train the evaluation's networks"),
    "figures": Stage("figures", "generate the README's pictures"),
}
DONE = WORK / "done.json"


def main(argv: list[str]) -> None:
    """Run the unfinished stages, or those named on the command line."""
    width = max(map(len, STAGES))
    stages = "\n".join(f"  {name:{width}}  {stage.task}" for name, stage in STAGES.items())
    parser = argparse.ArgumentParser(
        prog="train-mini", description=f"{__doc__}\n{stages}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "stages", nargs="*", choices=[*STAGES, []], metavar="stage", help="only these stages, finished or not"
    )
    named = parser.parse_args(argv).stages
    WORK.mkdir(exist_ok=True)
    done = set(json.loads(DONE.read_text())) if DONE.is_file() else set()
    for name, stage in STAGES.items():
        if name in named or (not named and name not in done):
            print(f"{name}: {stage.task}", flush=True)
            importlib.import_module(f".{stage.module}", __package__).main([*stage.arguments])
            done.add(name)
            DONE.write_text(json.dumps(sorted(done)))
