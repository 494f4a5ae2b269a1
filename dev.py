"""Everything a developer or a curious newcomer runs: `python dev.py demo`, `python dev.py test`. Standard library only.

The first run makes a virtual environment in `.venv` and, unless there is a ComfyUI already, fetches one into `.host`.
An existing ComfyUI (`COMFYUI_PATH`, or the one in whose `custom_nodes` we lie) is used, never changed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

if sys.version_info < (3, 10):  # noqa: UP036  (said to whoever starts us with an old one)
    sys.exit("dev.py needs Python 3.10 or newer; this one is " + sys.version.split()[0])

from devtools import browser, demo, environment, host, selfie, server, testing

RECIPE = str(host.ROOT / "recipes" / "run.py")
FORWARDED = {
    "bench": (["-m", "devtools.run_module", "benchmarks.sampling"], "what MoA costs beside the base model", ("train",)),
    "bench-training": (
        ["-m", "devtools.run_module", "benchmarks.training"],
        "what training takes, beside what was planned",
        (),
    ),
    "convert-fastcomposer": (
        [RECIPE, "convert_fastcomposer"],
        "FastComposer's pytorch_model.bin as an adapter: convert-fastcomposer FILE [OUT]",
        (),
    ),
    "eval": ([RECIPE, "evaluate"], "measure MoA Mini, or your adapter: eval config.toml; resumes", ("train",)),
    "prepare": (
        [RECIPE, "adapter.prepare"],
        "make missing captions and masks, show all: prepare config.toml",
        ("train",),
    ),
    "train": ([RECIPE, "adapter.train"], "train an adapter on your pictures: train config.toml; resumes", ("train",)),
    "plan": ([RECIPE, "adapter.plan"], "memory and time a training run will need: plan config.toml", ("train",)),
    "train-mini": ([RECIPE, "mini.train"], "make MoA Mini from nothing (hours on CPU); resumes", ("train",)),
}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev.py", description="Develop, test and try MoA for ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("host", help="make the environment, find or fetch a ComfyUI, say where it is")
    tests = commands.add_parser("test", help="run the tests: core, on the real host, in a real browser")
    tests.add_argument(
        "suites", nargs="*", help=f"only these: {', '.join(testing.SUITES)}; what follows -- goes to pytest"
    )
    commands.add_parser("lint", help="ruff and pyright")
    shown = commands.add_parser("demo", help="two reference people in one picture, on a real ComfyUI server")
    shown.add_argument("--ui", action="store_true", help="leave the server running and print its address")
    for name, (_, text, _) in FORWARDED.items():
        commands.add_parser(name, help=text, add_help=False)

    own, passed_on = _split(arguments)
    options = parser.parse_args(own)
    if options.command in FORWARDED:
        return _forward(options.command, passed_on)
    if options.command == "test":
        if wrong := set(options.suites) - set(testing.SUITES):
            parser.error(f"no such tests: {', '.join(sorted(wrong))}; there are {', '.join(testing.SUITES)}")
        if not options.suites or "browser" in options.suites:
            browser.find()
        folder = environment.ensure("dev", "train")
        selfie.ensure()
        return testing.main(folder, options.suites, passed_on)
    if options.command == "lint":
        environment.ensure("dev", "train")
        return testing.lint()
    folder = environment.ensure()
    if options.command == "demo":
        return demo.main(folder, options.ui)
    print(f"ComfyUI {host.version(folder)} in {folder}\nPython {environment.python()}")
    return 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those of the program behind the command."""
    if arguments and arguments[0] in FORWARDED:
        return arguments[:1], arguments[1:]
    if "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []


def _forward(command: str, arguments: list[str]) -> int:
    program, _, extras = FORWARDED[command]
    folder = environment.ensure(*extras)
    if command in ("prepare", "eval") and any(a.endswith(".toml") for a in arguments):
        selfie.ensure()
    variables = {**os.environ, "COMFYUI_PATH": str(folder), "HF_HUB_OFFLINE": "1"}
    run = [str(environment.python()), *program, *arguments]
    # Modules are found from our folder; paths that a person gives to a recipe are meant from where they stand.
    return subprocess.run(run, cwd=host.ROOT if program[0] == "-m" else None, env=variables).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (host.HostError, environment.EnvironmentFailure, browser.NoBrowser, server.ServerError) as error:
        sys.exit(f"dev.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
