"""Saved subjects as pictures: on Load Subject, and in the sidebar, from which they come into the graph."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from devtools.server import Server

ADAPTER = "bundled/mini/adapter.safetensors"
LOADERS = "window.app.graph._nodes.filter(node => node.type === 'MoALoadSubject')"
COLOURS = {"anna": 0xC08060, "ben": 0x204080}


@pytest.fixture(scope="module")
def saved(server: Server) -> list[str]:
    """The files of two subjects with pictures of one colour each."""
    prompt: dict[str, Any] = {"1": {"class_type": "LoadMoAAdapter", "inputs": {"adapter_file": ADAPTER}}}
    for name, colour in COLOURS.items():
        empty = {"width": 64, "height": 64, "batch_size": 1, "color": colour}
        prompt[f"picture {name}"] = {"class_type": "EmptyImage", "inputs": empty}
        encode = {"adapter": ["1", 0], "images": [f"picture {name}", 0], "word": "man", "occurrence": 1}
        prompt[f"encode {name}"] = {"class_type": "SubjectEncode", "inputs": encode}
        save = {"subject": [f"encode {name}", 0], "filename_prefix": name, "licence": f"{name} agreed"}
        prompt[name] = {"class_type": "MoASaveSubject", "inputs": {**save, "thumbnail": [f"picture {name}", 0]}}
    server.queue(prompt)
    return [file["name"] for file in server.get("/experiment/models/moa_subjects")]


@pytest.fixture
def empty(page: Page, saved: list[str]) -> Page:
    """The page with an empty graph, after the drop-downs were read again."""
    page.evaluate("window.app.refreshComboInNodes()")
    page.evaluate("window.app.graph.clear()")
    return page


def test_a_subject_is_chosen_by_its_picture(empty: Page, saved: list[str]):
    assert len(saved) >= 2
    empty.evaluate(
        """() => { const node = window.LiteGraph.createNode("MoALoadSubject"); window.app.graph.add(node);
                   node.pos = [300, 300]; window.app.canvas.ds.reset(); }"""
    )
    cards = empty.locator(".moa-subjects .moa-subject")
    expect(cards).to_have_count(len(saved))
    card = cards.filter(has_text="ben").first
    empty.wait_for_function("document.querySelector('.moa-subjects img').naturalWidth === 256")
    colour = card.locator("img").evaluate(
        """async image => { await image.decode(); const context = new OffscreenCanvas(1, 1).getContext("2d");
           context.drawImage(image, 0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3); }"""
    )
    assert all(abs(found - wanted) < 6 for found, wanted in zip(colour, (0x20, 0x40, 0x80), strict=True))
    empty.wait_for_function("card => card.title.endsWith('Licence: ben agreed')", arg=card.element_handle())
    card.click()
    empty.wait_for_function(f"{LOADERS}[0].widgets[0].value.startsWith('ben')")
    assert len(empty.evaluate(f"{LOADERS}[0].serialize().widgets_values")) == 3


def test_the_sidebar_adds_a_subject_by_click_and_by_drag(empty: Page):
    empty.evaluate("window.app.extensionManager.sidebarTab.toggleSidebarTab('moa-subjects')")
    card = empty.locator(".moa-library .moa-subject").filter(has_text="anna").first
    card.click()
    empty.wait_for_function(f"{LOADERS}.length === 1")
    card.drag_to(empty.locator("#graph-canvas"), target_position={"x": 1100, "y": 500})
    empty.wait_for_function(f"{LOADERS}.length === 2")
    files = empty.evaluate(f"{LOADERS}.map(node => node.widgets[0].value)")
    assert all(file.startswith("anna") for file in files)
    place = empty.evaluate(f"{LOADERS}[1].pos")
    expected = empty.evaluate("window.app.canvas.convertCanvasToOffset([1100, 500])")
    assert abs(place[0] - expected[0]) < 5 and abs(place[1] - expected[1]) < 60
    empty.evaluate("window.app.extensionManager.sidebarTab.toggleSidebarTab('moa-subjects')")
