"""Our pack in the real page: the nodes are there, and every example workflow loads, runs and shows its pictures."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from devtools import demo
from devtools.server import Server
from devtools.walkthrough import Walkthrough
from devtools.workflow import DISPLAY_ONLY, to_prompt

NODES = {"LoadMoAAdapter", "SubjectEncode", "MoATextEncode", "ApplyMoA", "RouterVisualize", "MoALoadMini"}
EXAMPLES = sorted(demo.EXAMPLES.glob("*.json"))
RUNNING = [demo.EXAMPLES / f"{name}_mini.json" for name in ("one_person", "two_people", "swap")]
"""Need no download. The others run in `tests/comfy/test_applications.py`; the last of these runs its nodes once for each entry of a list."""
STOCK = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "stock"}},
}
ENDS = ["SaveImage", "PreviewImage", "RouterVisualize"]
LEGIBLE = 0.6
"""Below this zoom the page hides titles."""
SHOWN = "window.app.graph._nodes.filter(node => node.imgs?.length).map(node => node.type)"


def test_our_nodes_are_in_the_page(page: Page):
    registered = page.evaluate("Object.keys(window.LiteGraph.registered_node_types)")
    assert not NODES.difference(registered)


def test_a_stock_workflow_runs_by_the_button(page: Page, run: Any):
    page.evaluate("prompt => window.app.loadApiJson(prompt, 'stock')", STOCK)
    workflow = page.evaluate("window.app.graph.serialize()")
    assert run(workflow)["name"] == "execution_success"
    page.wait_for_function(f"{SHOWN}.join() == 'SaveImage'")


def test_there_are_examples():
    assert EXAMPLES
    for file in EXAMPLES:
        assert file.with_suffix(".jpg").is_file(), f"{file.name} has no thumbnail"


@pytest.mark.parametrize("file", RUNNING, ids=lambda file: file.stem)
def test_an_example_loads_runs_and_shows_its_pictures(file: Any, page: Page, server: Server, run: Any):
    workflow = json.loads(file.read_text(encoding="utf-8"))
    ended = run(workflow)
    assert ended["name"] == "execution_success", ended["detail"]
    ends = [node["type"] for node in workflow["nodes"] if node["type"] in ENDS]
    assert ends
    # A picture is loaded when its node is drawn: all of them must lie in the view the workflow opens with.
    page.wait_for_function(
        f"count => {SHOWN}.filter(type => {json.dumps(ENDS)}.includes(type)).length == count", arg=len(ends)
    )


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_our_conversion_to_a_prompt_is_the_pages(file: Any, page: Page, server: Server):
    workflow = json.loads(file.read_text(encoding="utf-8"))
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    theirs = page.evaluate("window.app.graphToPrompt()")["output"]
    ours = to_prompt(workflow, server.object_info())
    assert ours == {key: {"class_type": node["class_type"], "inputs": node["inputs"]} for key, node in theirs.items()}


def test_a_template_runs_by_its_card(page: Page):
    """From the archive in an empty host: Templates, the card, Run, pictures. Nothing is copied or chosen by hand."""
    page.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_placeholder("Search").last.fill("two_people_mini")
    page.get_by_text("two_people_mini", exact=True).first.click()
    page.wait_for_function("window.app.graph._nodes.some(node => node.type === 'ApplyMoA')")
    zoom = page.evaluate("window.app.canvas.ds.scale")
    assert zoom > LEGIBLE
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(f"{SHOWN}.filter(type => {json.dumps(ENDS)}.includes(type)).length == 3")


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_no_example_has_an_unknown_node_or_picture(file: Any, server: Server):
    known = server.object_info()
    nodes = json.loads(file.read_text(encoding="utf-8"))["nodes"]
    assert {node["type"] for node in nodes} <= {*known, *DISPLAY_ONLY}
    pictures = {node["widgets_values"][0] for node in nodes if node["type"] == "LoadImage"}
    assert pictures <= set(known["LoadImage"]["input"]["required"]["image"][0])


def test_examples_are_offered_as_templates(server: Server):
    offered = server.get("/api/workflow_templates")["moa-attention"]
    assert sorted(offered) == [file.stem for file in EXAMPLES]


def test_the_details_of_an_error_are_shown_without_its_stack_trace(page: Page, tmp_path: Path):
    workflow = json.loads((demo.EXAMPLES / "one_person_mini.json").read_text(encoding="utf-8"))
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    walk = Walkthrough(page, tmp_path)
    walk.set("The prompt", "text", "a beach")
    assert "is not in the prompt" in walk.run()["message"]
    walk.details("is not in the prompt")
    panel = page.get_by_test_id("properties-panel")
    expect(panel).to_contain_text("is not in the prompt")
    expect(panel).not_to_contain_text("Stack Trace")
