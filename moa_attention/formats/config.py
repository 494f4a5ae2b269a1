"""The `config` entry of an adapter's header: its types, ranges and names are checked before anything is built from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..adapters.vision import HEAD
from ..method.spec import LayerSpec, MoAConfig
from .errors import is_one_line

WIDTH = range(1, 1 << 16)
RANGES: Mapping[str, range] = {
    "hidden": WIDTH, "context": WIDTH, "heads": range(1, 1 << 10), "depth": range(1 << 10), "text_width": WIDTH,
    "image_width": WIDTH, "rank": range(1 << 13), "image_tokens": range(1, 17), "encoder_tail": range(65), "encoder_width": range(1 << 16),
}  # fmt: skip
"""Of the whole numbers. Stable Diffusion XL has depth 70 and widths up to 2,048."""
LAYERS, NAME_LENGTH = 1 << 10, 200
"""The most layers, and the longest name."""
LAYER_NAME = re.compile(r"(input|middle|output)_\d{1,3}_\d{1,3}_attn[12]")
AnySpec = TypeVar("AnySpec", LayerSpec, MoAConfig)


def config_to_json(config: MoAConfig) -> str:
    """The header's `config` entry. A layer's stage and kind are part of its name there."""
    entry = asdict(config)
    for layer in entry["layers"]:
        del layer["stage"], layer["kind"]
    return json.dumps(entry, separators=(",", ":"))


def config_from_json(text: str) -> MoAConfig:
    """As `read_config`, from text."""
    return read_config(json.loads(text))


def read_config(entry: Any) -> MoAConfig:
    """The description of an adapter from parsed JSON.

    Raises: ValueError naming the field that is missing, unknown, of another type or out of range.
    """
    given = dict(object_of(entry, "config"))
    layers = given.get("layers")
    if not isinstance(layers, list) or not 1 <= len(layers) <= LAYERS:
        raise ValueError(f"config.layers must be a list of 1 to {LAYERS} layers")
    given["layers"] = tuple(read_layer(layer, f"config.layers[{i}]") for i, layer in enumerate(layers))
    config = checked(MoAConfig, given, "config")
    problem = next(contradictions(config), None)
    if problem is not None:
        raise ValueError(problem)
    return config


def read_layer(entry: Any, where: str) -> LayerSpec:
    """A layer; in version 1 its name is stage, block, transformer and attention, joined by `_`."""
    given = dict(object_of(entry, where))
    name = given.get("name")
    if not isinstance(name, str) or not LAYER_NAME.fullmatch(name):
        raise ValueError(f"{where}.name must be like input_1_0_attn2, found {name!r}")
    if given.keys() & {"stage", "kind"}:
        raise ValueError(f"{where} has stage and kind, which belong to its name")
    stage, *_, attention = name.split("_")
    return checked(LayerSpec, {**given, "stage": stage, "kind": "cross" if attention == "attn2" else "self"}, where)


def object_of(entry: Any, where: str) -> Mapping[str, Any]:
    """Raises: ValueError when this is no JSON object."""
    if not isinstance(entry, dict):
        raise ValueError(f"{where} must be a JSON object, found {type(entry).__name__}")
    return entry


def checked(kind: type[AnySpec], given: Mapping[str, Any], where: str) -> AnySpec:
    """A `LayerSpec` or `MoAConfig` of these fields.

    Raises: ValueError.
    """
    known = {field.name: field for field in fields(kind)}
    unknown = sorted(given.keys() - known.keys())
    missing = [name for name, field in known.items() if name not in given and field.default is MISSING]
    if unknown or missing:
        raise ValueError(
            f"{where} has the unknown field {unknown[0]!r}" if unknown else f"{where}.{missing[0]} is missing"
        )
    for name, value in given.items():
        wanted = problem_of(value, hints(kind)[name], RANGES.get(name))
        if wanted is not None:
            raise ValueError(f"{where}.{name} must be {wanted}, found {value!r}")
    return kind(**given)


hints = cache(get_type_hints)


def problem_of(value: Any, hint: Any, allowed: range | None) -> str | None:
    """What a value must be; None where it is that."""
    if get_origin(hint) is Literal:
        return None if value in get_args(hint) else " or ".join(get_args(hint))
    if hint is int and allowed is not None:
        right = type(value) is int and value in allowed
        return None if right else f"a whole number from {allowed.start} to {allowed.stop - 1}"
    if hint is str:
        right = isinstance(value, str) and is_one_line(value) and 0 < len(value) <= NAME_LENGTH
        return None if right else f"a name of 1 to {NAME_LENGTH} characters on one line"
    return None if hint is not bool or isinstance(value, bool) else "true or false"


def contradictions(config: MoAConfig) -> Iterator[str]:
    """Fields that do not fit together."""
    names = [layer.name for layer in config.layers]
    if len(set(names)) < len(names):
        yield "config.layers has two layers with one name"
    for layer in config.layers:
        width = config.text_width if layer.is_cross else layer.hidden
        if layer.context != width:
            yield f"the context of {layer.name} is {layer.context} wide, its keys need {width}"
        if layer.hidden % layer.heads:
            yield f"{layer.name} is {layer.hidden} wide, which {layer.heads} heads do not divide"
        if config.router == "mlp" and layer.hidden < 4:
            yield f"{layer.name} is too narrow for a router with two layers"
    if config.image_tokens > 1 and config.fusion == "fastcomposer":
        yield f"config.image_tokens is {config.image_tokens}, but FastComposer's fusion gives a subject one token"
    if config.encoder_tail and (config.encoder_width < HEAD or config.encoder_width % HEAD):
        yield f"config.encoder_width is {config.encoder_width}, not a multiple of the heads' {HEAD}"
