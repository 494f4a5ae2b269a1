"""Our pack in the real page: the nodes are there, and every example workflow loads, runs and shows its pictures."""

import json
from typing import Any

import pytest
from playwright.sync_api import Page

from devtools import demo
from devtools.server import Server
from devtools.workflow import to_prompt

NODES = {"LoadMoAAdapter", "SubjectEncode", "MoATextEncode", "ApplyMoA", "RouterVisualize", "MoALoadMini"}
EXAMPLES = sorted(demo.EXAMPLES.glob("*.json"))
STOCK = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "stock"}},
}
ENDS = ["SaveImage", "PreviewImage", "RouterVisualize"]
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


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
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


def test_examples_are_offered_as_templates(server: Server):
    offered = server.get("/api/workflow_templates")["moa-attention"]
    assert sorted(offered) == [file.stem for file in EXAMPLES]
