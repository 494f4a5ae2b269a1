"""The subgraph blueprints: the page offers them, and a subgraph of our nodes sends the same prompt as the nodes themselves."""

import json

import pytest
from playwright.sync_api import Page, expect

from devtools import demo
from devtools.draw_subgraphs import BLUEPRINTS, FOLDER
from devtools.server import Server

SENT = "window.app.graphToPrompt().then(made => Object.values(made.output).map(node => [node.class_type, Object.keys(node.inputs)]))"
JOIN = """types => { const graph = window.app.graph;
    graph.convertToSubgraph(new Set(graph._nodes.filter(node => types.includes(node.type)))); }"""


def test_the_page_offers_them(page: Page, server: Server):
    offered = {entry["name"]: key for key, entry in server.get("/global_subgraphs").items()}
    assert set(BLUEPRINTS) == {file.stem for file in FOLDER.glob("*.json")} <= set(offered)
    page.evaluate("window.app.graph.clear()")
    for name in BLUEPRINTS:
        page.evaluate("window.app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        page.keyboard.type(name, delay=20)
        expect(page.get_by_role("option").first).to_contain_text(name)  # the page searches a moment after the last key
        page.keyboard.press("Enter")
        page.wait_for_function("name => window.app.graph._nodes.some(node => node.title === name)", arg=name)
    assert page.evaluate("window.app.graph._nodes.every(node => node.isSubgraphNode?.())")


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_file_is_one_subgraph_of_known_nodes(name: str, server: Server):
    workflow = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    [node], [subgraph] = workflow["nodes"], workflow["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"] and subgraph["name"] == name
    types = {inner["type"] for inner in subgraph["nodes"]}
    assert types == set(BLUEPRINTS[name][1]) <= set(server.object_info())
    assert {"MODEL", "CONDITIONING"} <= {output["type"] for output in subgraph["outputs"]}


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_a_subgraph_sends_what_its_nodes_send(name: str, page: Page):
    template, types = BLUEPRINTS[name]
    workflow = json.loads((demo.EXAMPLES / f"{template}.json").read_text(encoding="utf-8"))
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    flat = page.evaluate(SENT)
    page.evaluate(JOIN, types)
    assert page.evaluate("window.app.graph._nodes.some(node => node.isSubgraphNode?.())")
    joined = page.evaluate(SENT)
    assert sorted(map(str, joined)) == sorted(map(str, flat))
