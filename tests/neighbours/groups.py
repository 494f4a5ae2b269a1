"""The neighbours of a group: the host's own nodes, or one extension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from host_models import SETTINGS, on_models
from host_prompts import host_prompts
from host_samplers import host_samplers
from packs import pack_neighbours
from scene import Neighbour
from table import HOST

COMPILED = ("TorchCompileModel",)
"""Compiling takes minutes a cell, and rounds otherwise: tests/comfy/test_compiled.py runs it."""


def neighbours_of(group: str, nodes: Mapping[str, Any]) -> Iterator[Neighbour]:
    """Args: nodes: those of the group."""
    if group != HOST:
        yield from pack_neighbours(group, nodes)
        return
    yield from host_prompts()
    yield from on_models({name: node for name, node in nodes.items() if name not in COMPILED}, SETTINGS)
    yield from host_samplers()
