"""The commands that take a config file: their arguments and settings are read and checked before the host is imported."""

import argparse
import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import checks
from .cards import CARDS, CPU, DEFAULT
from .evaluation.checking import check_evaluating
from .overrides import add_options, read_overrides
from .run_files import finished, stored_run_of
from .settings import Settings, read_settings

MODULES = {"eval": "evaluate"}
"""The module of a command whose name differs."""


def positive(kind: Callable[[str], float]) -> Callable[[str], float]:
    """A type of arguments: numbers above 0."""

    def read(text: str) -> float:
        if not (number := kind(text)) > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return number

    return read


OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "plan": {
        "--card": {
            "choices": [*CARDS, CPU],
            "help": f"the device for which memory and hours are computed, by default {DEFAULT}",
        },
        "--gib": {
            "type": positive(float),
            "metavar": "GIB",
            "help": "the memory of the card, instead of that of --card; without --card no hours are computed",
        },
        "--gpus": {"type": positive(int), "default": 1, "metavar": "N", "help": "cards that share every step"},
    },
    "train": {
        "--dry-run": {
            "action": "store_true",
            "help": "check everything, load the models, fill the cache, draw the next batches as contact sheets, and end "
            "without training",
        },
        "--find-rate": {
            "action": "store_true",
            "help": "fill the cache, let the learning rate rise over 160 steps of a fresh adapter, draw the losses, suggest a "
            "learning rate, and end; the run's states stay as they are",
        },
        "--from-step": {
            "type": int,
            "metavar": "STEP",
            "help": "continue from this kept state instead of the newest, which is kept under its step; leave the option out to "
            "resume afterwards",
        },
    },
    "export": {
        "--step": {
            "type": int,
            "nargs": "*",
            "default": [],
            "metavar": "STEP",
            "help": "the kept state to export, or several for the mean of their weights; without one the newest",
        }
    },
}
"""Options of single commands."""


class Request(NamedTuple):
    """What a command was asked to do."""

    settings: Settings
    options: argparse.Namespace
    notes: list[str]
    """A sentence for each setting that changed since the run's last session."""


def parser(name: str) -> argparse.ArgumentParser:
    """The arguments of a command. Its description is the docstring of its module, which is read without an import."""
    source = Path(__file__).with_name(f"{MODULES.get(name, name)}.py").read_text(encoding="utf-8")
    description = ast.get_docstring(ast.parse(source))
    usage = "%(prog)s config.toml [OPTION ...] [--SETTING VALUE ...]"
    made = argparse.ArgumentParser(prog=name, usage=usage, description=description, allow_abbrev=False)
    made.add_argument("config", type=Path)
    for option, shape in OPTIONS.get(name, {}).items():
        made.add_argument(option, **shape)
    add_options(made)
    return made


def read_request(name: str, argv: list[str]) -> Request:
    """Read the arguments and the settings of a command, and check what it needs.

    Exits with a sentence when something is wrong, or when a training run has nothing left to do.
    """
    options, overrides = read_overrides(parser(name), argv)
    notes: list[str] = []
    try:
        settings = read_settings(options.config, overrides)
        if name == "train":
            stored = stored_run_of(settings, options.from_step)
            notes = checks.check_training(settings, stored)
            if text := finished(settings, stored):
                print(text)
                sys.exit(0)
        elif name == "plan":
            checks.check_planning(settings)
        elif name == "prepare":
            checks.check_preparing(settings)
        elif name == "export":
            checks.check_exporting(settings, options.step)
        elif name == "eval":
            check_evaluating(settings, options.config)
    except (ValueError, OSError) as error:  # what users can mend; all other errors are faults of ours
        sys.exit(f"{name}: {error}")
    return Request(settings, options, notes)
