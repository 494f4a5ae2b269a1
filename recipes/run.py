"""Run one recipe beside ComfyUI: `python recipes/run.py mini.model.vae --minutes 12`.

The host is that of `$COMFYUI_PATH`, or `.host/ComfyUI`. The recipe is `main(arguments)` of the module named first.
"""

import importlib
import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # the repository instead of this folder

from devtools import host, in_process, run_module, selfie, venv  # noqa: E402

CHECKED = ("adapter.train", "adapter.plan", "adapter.prepare", "adapter.export", "adapter.evaluate")
"""Commands whose arguments and settings are checked before the host is imported, which takes ten seconds."""


def main(argv: list[str]) -> None:
    """Run `comfyui_moa.recipes.<argv[0]>` with the other arguments."""
    if not argv:
        sys.exit(__doc__)
    in_process.use_large_pages()
    try:
        if argv[0] in CHECKED:
            check(argv[0].removeprefix("adapter."), argv[1:])
        run_module.main(f"recipes.{argv[0]}", argv[1:], pytorch_attention=True)
    except (host.HostError, venv.EnvironmentFailure) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def check(name: str, arguments: list[str]) -> None:
    """Exit with a sentence where the command would; `prepare` then gets its segmenter unless the settings name one."""
    in_process.import_pack()
    commands = importlib.import_module(f"{in_process.PACK}.recipes.adapter.commands")
    names = {module: command for command, module in commands.MODULES.items()}
    request = commands.read_request(names.get(name, name), arguments)
    if name == "prepare" and not request.settings.prepare.segmenter:
        selfie.ensure()


if __name__ == "__main__":
    main(sys.argv[1:])
