"""The adapter trainer's commands, in this process."""

from __future__ import annotations

import importlib

import subjects  # noqa: F401  (imports the pack)


def command(name: str, *arguments: str) -> None:
    """Run `dev.py NAME ARGUMENTS`, for example `command("train", "config.toml")`."""
    importlib.import_module(f"comfyui_moa.recipes.adapter.{name}").main(list(arguments))
