"""MoA Mini from nothing, stage by stage: `python dev.py train-mini`.

Hours on a CPU; where the host has a GPU, training is done there. A stage that ended is not done again, one that was
killed goes on from its own checkpoint; everything lies in `.mini/`, and what is shipped ends in `weights/mini/`. Delete
`.mini/` to begin anew.
"""

import argparse
import importlib
import json

from .faces import WORK

STAGES = {
    "faces": "rasterise the people",
    "dataset": "compose and caption the pictures",
    "latents": "find the latent space",
    "vae": "train the decoder",
    "base": "train the text encoder and the U-Net",
    "encoder": "school the adapter's image encoder",
    "adapter": "train the adapter",
    "judges": "train the judges of the evaluation",
    "figures": "paint the README's pictures",
}
DONE = WORK / "done.json"


def main(argv: list[str]) -> None:
    """Run the stages that are not done, or those named."""
    width = max(map(len, STAGES))
    stages = "\n".join(f"  {name:{width}}  {text}" for name, text in STAGES.items())
    parser = argparse.ArgumentParser(
        prog="train-mini", description=f"{__doc__}\n{stages}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], metavar="stage", help="only these, done or not")
    named = parser.parse_args(argv).stages
    WORK.mkdir(exist_ok=True)
    done = set(json.loads(DONE.read_text())) if DONE.is_file() else set()
    for stage, text in STAGES.items():
        if stage in named or (not named and stage not in done):
            print(f"{stage}: {text}", flush=True)
            importlib.import_module(f".{stage}", __package__).main([])
            done.add(stage)
            DONE.write_text(json.dumps(sorted(done)))
