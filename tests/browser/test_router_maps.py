"""Sliders over the finished picture on Visualize MoA Router, and the router's map while sampling on Apply MoA."""

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from devtools import demo

STEPS = 6
RENDERER = "on => window.app.ui.settings.setSettingValueAsync('Comfy.VueNodes.Enabled', on)"
PREVIEWS = """() => { window.previews = []; window.app.api.addEventListener("b_preview_with_metadata",
                      ({detail}) => window.previews.push(detail.nodeId)); }"""
PIXELS = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""


def workflow() -> dict[str, Any]:
    """Two pictures of two people in few steps, the router's map with each subject in its colour, and the map while sampling."""
    made = json.loads((demo.EXAMPLES / "two_people_mini.json").read_text(encoding="utf-8"))
    for node in made["nodes"]:
        values = node.get("widgets_values")
        if node["type"] == "KSampler":
            values[2] = STEPS
        elif node["type"] == "EmptyLatentImage":
            values[2] = 2
        elif node["type"] == "RouterVisualize":
            values[0] = "subjects"
    return made


@pytest.fixture(params=[False, True], ids=["canvas", "Vue nodes"])
def explorer(request: pytest.FixtureRequest, page: Page, run: Any) -> Iterator[Locator]:
    """The opened widget after a run, in one of the page's two renderers."""
    page.evaluate(RENDERER, request.param)
    ended = run(workflow())
    assert ended["name"] == "execution_success", ended["detail"]
    widget = page.locator(".moa-router")
    widget.get_by_role("button").click()
    expect(widget.locator("canvas")).to_be_visible()
    yield widget
    page.evaluate(RENDERER, False)


def drawn(explorer: Locator) -> np.ndarray:
    """(H,W,3) what the canvas shows."""
    canvas = explorer.locator("canvas")
    width, height = canvas.evaluate("canvas => [canvas.width, canvas.height]")
    return np.array(canvas.evaluate(PIXELS), dtype=float).reshape(height, width, 4)[..., :3]


def nodes_own(page: Page) -> np.ndarray:
    """(H,W,3) the first picture that the node shows, above its legend."""
    file = page.evaluate("Object.values(window.app.nodeOutputs).find(each => each.moa_maps).images[0]")
    source = page.evaluate("file => window.app.api.apiURL(`/view?${new URLSearchParams(file)}`)", file)
    answer = page.request.get(urljoin(page.url, source))
    return np.array(Image.open(io.BytesIO(answer.body())).convert("RGB"), dtype=float)


def choose(explorer: Locator, name: str, place: int) -> None:
    explorer.get_by_label(name).fill(str(place))


def test_the_sliders_show_what_the_node_computes(page: Page, explorer: Locator):
    shown = drawn(explorer)
    theirs = nodes_own(page)[: shown.shape[0]]
    assert np.abs(shown - theirs).mean() < 3  # of 255; the page smooths the small maps in its own way
    choose(explorer, "subject", 0)
    man = np.ptp(drawn(explorer), axis=-1)
    choose(explorer, "subject", 1)
    woman = np.ptp(drawn(explorer), axis=-1)
    assert np.corrcoef(man.ravel(), woman.ravel())[0, 1] < 0.5  # two people in two places


def test_steps_layers_and_pictures_have_their_own_maps(page: Page, explorer: Locator):
    everything = drawn(explorer)
    choose(explorer, "step", STEPS - 2)
    expect(explorer).to_contain_text(f"step: {STEPS - 2}")
    late = drawn(explorer)
    assert np.abs(late - everything).mean() > 0.1
    choose(explorer, "layer", 0)
    assert np.abs(drawn(explorer) - late).mean() > 0.1
    choose(explorer, "picture", 1)
    assert np.abs(drawn(explorer) - late).mean() > 5


def test_the_map_is_shown_while_sampling(page: Page, run: Any):
    made = workflow()
    [apply] = [node for node in made["nodes"] if node["type"] == "ApplyMoA"]
    page.evaluate("workflow => window.app.loadGraphData(workflow)", made)
    page.evaluate(PREVIEWS)
    page.evaluate(
        "window.app.graph._nodes.find(n => n.type === 'ApplyMoA').widgets.find(w => w.name === 'live_map').value = true"
    )
    ended = run(page.evaluate("window.app.graph.serialize()"))
    assert ended["name"] == "execution_success", ended["detail"]
    page.wait_for_function("node => window.previews.filter(each => each === node).length >= 3", arg=str(apply["id"]))
