"""Everything a developer or a curious newcomer runs: `python dev.py demo`, `python dev.py test`. Standard library only.

The first run makes a virtual environment in `.venv` and, unless there is a ComfyUI already, fetches one into `.host`.
An existing ComfyUI (`COMFYUI_PATH`, or the one in whose `custom_nodes` we lie) is used, never changed.
"""

from __future__ import annotations

import argparse
import sys
from typing import NamedTuple

if sys.version_info < (3, 10):  # noqa: UP036  (an older Python can start this file)
    sys.exit("dev.py needs Python 3.10 or newer; this one is " + sys.version.split()[0])

from devtools import browser, environment, host, selfie, testing, venv
from devtools.migration import run as migration


class Forwarded(NamedTuple):
    """A command that a program in `.venv` carries out, with the arguments as they are."""

    program: tuple[str, ...]
    help: str
    group: str | None = "train"


def benchmark(name: str) -> tuple[str, ...]:
    return ("-m", "devtools.run_module", f"benchmarks.{name}")


def recipe(name: str) -> tuple[str, ...]:
    return (str(host.ROOT / "recipes" / "run.py"), name)


FORWARDED = {
    "bench": Forwarded(benchmark("sampling"), "measure the cost of MoA relative to the base model"),
    "bench-caching": Forwarded(benchmark("caching"), "measure how many pictures a second training caches"),
    "bench-training": Forwarded(
        benchmark("training"), "measure memory and time of training, and compare them with the plan", "train"
    ),
    "convert-fastcomposer": Forwarded(
        recipe("convert_fastcomposer"),
        "convert FastComposer's pytorch_model.bin into an adapter: convert-fastcomposer FILE [OUT]",
        None,
    ),
    "eval": Forwarded(recipe("evaluate"), "measure MoA Mini, or your own adapter: eval config.toml; resumable"),
    "export": Forwarded(
        recipe("adapter.export"), "write the adapter of a kept state of a training run: export config.toml --step N"
    ),
    "merge": Forwarded(
        recipe("merge"), "write the weighted mean of several adapters: merge FILE FILE --weights W W --out FILE", None
    ),
    "prepare": Forwarded(
        recipe("adapter.prepare"),
        "make missing captions and masks, draw contact sheets: prepare config.toml; resumable",
    ),
    "train": Forwarded(recipe("adapter.train"), "train an adapter on your pictures: train config.toml; resumable"),
    "fuzz": Forwarded(
        (str(host.ROOT / "tests" / "fuzz" / "run.py"),),
        "change valid files at random; each must load or be refused by a sentence: fuzz --count N --seed S",
        "dev",
    ),
    "neighbours": Forwarded(
        (str(host.ROOT / "tests" / "neighbours" / "run.py"),),
        "run MoA beside ComfyUI's other nodes and other extensions: neighbours --packs FOLDER",
        "dev",
    ),
    "soak": Forwarded(
        (str(host.ROOT / "tests" / "soak" / "run.py"),),
        "run random workflows on one server, with interruptions and changing files: soak --prompts N --seed S",
        "dev",
    ),
    "plan": Forwarded(recipe("adapter.plan"), "estimate memory and time of a training run: plan config.toml"),
    "train-mini": Forwarded(recipe("mini.train"), "train MoA Mini from nothing (hours on a CPU); resumable"),
}


MIGRATE = "migrate"
"""Needs neither an environment nor a host."""


def main(arguments: list[str]) -> int:
    if arguments[:1] == [MIGRATE]:
        return migration.main(arguments[1:])
    own, passed_on = _split(arguments)
    parser = _parser()
    options = parser.parse_args(own)
    if options.command in FORWARDED:
        return _forward(options.command, passed_on)
    if options.command == "test":
        suites = options.suites or (["comfy"] if options.short else [*testing.SUITES])
        if wrong := set(suites) - set(testing.SUITES):
            parser.error(f"unknown test suites: {', '.join(sorted(wrong))}; choose from {', '.join(testing.SUITES)}")
        if "browser" in suites:
            browser.find()
        folder = environment.ensure("dev", "train", "optimisers", release=options.host)
        selfie.ensure()
        return testing.main(folder, suites, passed_on, options.short)
    if options.command == "lint":
        environment.ensure("dev", "train")
        return testing.lint()
    folder = environment.ensure()
    if options.command == "demo":
        ui = ["--ui"] if options.ui else []
        return venv.run("-m", "devtools.demo", *ui, cwd=host.ROOT, COMFYUI_PATH=str(folder))
    print(f"ComfyUI {host.version(folder)} in {folder}\nPython {venv.python()}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="dev.py", description="Develop, test and try MoA for ComfyUI.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("host", help="make the environment, find or download a ComfyUI, print its folder")
    tests = commands.add_parser(
        "test", help="run the tests: the core, the nodes on a real ComfyUI, the page in a real browser"
    )
    tests.add_argument(
        "suites", nargs="*", help=f"only these suites: {', '.join(testing.SUITES)}; arguments after -- go to pytest"
    )
    tests.add_argument(
        "--host",
        choices=host.releases(),
        metavar="VERSION",
        help=f"on another ComfyUI than yours or {host.DEFAULT}: {', '.join(host.releases())}",
    )
    tests.add_argument(
        "--short", action="store_true", help="of the tests on ComfyUI only those that another version of it can break"
    )
    commands.add_parser("lint", help="ruff and pyright")
    shown = commands.add_parser(
        "demo", help="generate one picture of two people with MoA Mini, on a real ComfyUI server"
    )
    shown.add_argument("--ui", action="store_true", help="leave the server running and print its address")
    commands.add_parser(
        MIGRATE,
        help="turn a workflow with nodes of IPAdapter_plus into one with the nodes of this extension: migrate FILE [OUT]",
    )
    for name, command in FORWARDED.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Our own arguments, and those of the program behind the command."""
    if arguments and arguments[0] in FORWARDED:
        return arguments[:1], arguments[1:]
    if "--" in arguments:
        at = arguments.index("--")
        return arguments[:at], arguments[at + 1 :]
    return arguments, []


def _forward(name: str, arguments: list[str]) -> int:
    command = FORWARDED[name]
    folder = environment.ensure(*([command.group] if command.group else []))
    if name == "eval" and any(a.endswith(".toml") for a in arguments):
        selfie.ensure()
    # Modules are found from our folder; paths that a person gives to a recipe are meant from where they stand.
    cwd = host.ROOT if command.program[0] == "-m" else None
    return venv.run(*command.program, *arguments, cwd=cwd, COMFYUI_PATH=str(folder), HF_HUB_OFFLINE="1")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (host.HostError, venv.EnvironmentFailure, browser.NoBrowser, migration.MigrationError) as error:
        sys.exit(f"dev.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
