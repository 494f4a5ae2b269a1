"""Calls any node of the host or of another extension: inputs that are not given are made from its schema."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from scene import Inputs, Scene

TAKES_MODEL = "MODEL"
HIDDEN: dict[Any, Any] = {"PROMPT": {}, "EXTRA_PNGINFO": {}, "UNIQUE_ID": "1"}
"""What a server gives to the nodes that ask for it."""


class NotMade(Exception):
    """An input of a type that the tiny models have no counterpart of."""


def model_nodes(nodes: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the nodes that take and give a MODEL and do not sample with it."""
    for name, node in sorted(nodes.items()):
        if TAKES_MODEL in outputs(node) and takes_model(node) and not samples(node):
            yield name


def sampler_nodes(nodes: Mapping[str, Any]) -> Iterator[str]:
    """Ids of the nodes that sample with a MODEL and prompts."""
    for name, node in sorted(nodes.items()):
        if samples(node) and takes_model(node) and {"LATENT", "IMAGE"} & set(outputs(node)):
            yield name


def takes_model(node: Any) -> bool:
    return TAKES_MODEL in [kind(spec) for spec in declared(node).values()]


def samples(node: Any) -> bool:
    return "steps" in declared(node) and "CONDITIONING" in [kind(spec) for spec in declared(node).values()]


def declared(node: Any) -> dict[str, Any]:
    """A node's required inputs by name."""
    return dict(node.INPUT_TYPES().get("required", {}))


def outputs(node: Any) -> list[str]:
    """The types of a node's outputs."""
    return [str(getattr(each, "value", each)) for each in node.RETURN_TYPES]


def kind(spec: Any) -> Any:
    """The type of an input; of a choice, its options."""
    return str(getattr(spec[0], "value", spec[0])) if isinstance(spec[0], str) else spec[0]


def call(node: Any, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """A node's results."""
    function = getattr(node if inspect.ismethod(getattr(node, node.FUNCTION)) else node(), node.FUNCTION)
    result = function(**arguments)
    result = asyncio.run(result) if inspect.isawaitable(result) else result
    result = result.get("result") if isinstance(result, dict) else result
    return tuple(result.args) if hasattr(result, "args") else tuple(result)


def apply_node(node: Any, scene: Scene, inputs: Inputs, given: Mapping[str, Any]) -> Inputs:
    """The inputs of a sampler after a node, which may return conditionings and latents, too."""
    found = results(node, scene, inputs, given)
    positive, negative = (*found.get("CONDITIONING", []), inputs.positive, inputs.negative)[:2]
    if len(found.get("CONDITIONING", [])) == 1:
        negative = inputs.negative
    latent = found.get("LATENT", [inputs.latent])[0]
    return replace(
        inputs, model=found.get(TAKES_MODEL, [inputs.model])[0], positive=positive, negative=negative, latent=latent
    )


def sample_with(node: Any, scene: Scene, inputs: Inputs, given: Mapping[str, Any]) -> torch.Tensor:
    """The latents or pictures of a node that samples."""
    with torch.inference_mode():
        found = results(node, scene, inputs, given)
    return found["LATENT"][0]["samples"] if "LATENT" in found else found["IMAGE"][0]


def results(node: Any, scene: Scene, inputs: Inputs, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A node's results by their types."""
    specs = {name: spec for name, spec in declared(node).items() if name not in given}
    first = next((name for name, spec in specs.items() if kind(spec) == TAKES_MODEL), "")
    made = {
        name: inputs.model if name == first else value_for(name, spec, scene, inputs) for name, spec in specs.items()
    }
    hidden = {name: HIDDEN[wanted] for name, wanted in node.INPUT_TYPES().get("hidden", {}).items() if wanted in HIDDEN}
    found: dict[str, list[Any]] = {}
    for name, value in zip(outputs(node), call(node, {**hidden, **made, **given}), strict=False):
        found.setdefault(name, []).append(value)
    return found


def value_for(name: str, spec: Any, scene: Scene, inputs: Inputs) -> Any:
    """An input of a node: its default, the first of a choice, or what this run of the tiny model has of its type.

    Raises: NotMade.
    """
    wanted, details = kind(spec), spec[1] if len(spec) > 1 else {}
    height, width = (8 * side for side in inputs.latent["samples"].shape[-2:])
    picture = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(2))
    options = wanted if isinstance(wanted, list | tuple) else details.get("options", [])
    own = {
        TAKES_MODEL: scene.other,
        "CLIP": scene.clip,
        "CONDITIONING": inputs.negative
        if "negative" in name
        else scene.encode("")
        if "empty" in name
        else inputs.positive,
        "LATENT": inputs.latent,
        "IMAGE": picture,
        "MASK": picture[..., 0],
    }
    if "default" in details:
        return details["default"]
    if options:
        return options[0]
    if wanted == "VAE":
        return scene.vae
    if isinstance(wanted, str) and wanted in own:
        return own[wanted]
    empty = {"INT": details.get("min", 0), "FLOAT": float(details.get("min", 0)), "STRING": "", "BOOLEAN": False}
    if isinstance(wanted, str) and wanted in empty:
        return empty[wanted]
    raise NotMade(
        "a file to choose is missing" if wanted == "COMBO" or options == [] == wanted else f"it takes a {wanted}"
    )
