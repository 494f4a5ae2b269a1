"""The prompt helper: words that carry subjects are coloured while typing, the others are marked, near misses are offered."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from devtools import demo
from moa_attention.pictures import COLOURS

CASES = json.loads((Path(__file__).parents[1] / "prompt_words.json").read_text(encoding="utf-8"))
WORDS = "/extensions/moa-attention/prompt_words.mjs"
PROMPT = "window.app.graph._nodes.find(node => node.type === 'MoATextEncode')"
RENDERER = "on => window.app.ui.settings.setSettingValueAsync('Comfy.VueNodes.Enabled', on)"


@pytest.fixture(params=[False, True], ids=["canvas", "Vue nodes"])
def helper(request: pytest.FixtureRequest, page: Page) -> Iterator[Locator]:
    """The widget on the prompt of an example, in one of the page's two renderers."""
    page.evaluate(RENDERER, request.param)
    workflow = json.loads((demo.EXAMPLES / "two_people_mini.json").read_text(encoding="utf-8"))
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    yield page.locator(".moa-prompt")
    page.evaluate(RENDERER, False)


def write(page: Page, text: str) -> None:
    """Type a prompt into the node's own text field."""
    field = page.locator("textarea").filter(visible=True)
    values = field.evaluate_all("all => all.map(each => each.value)")
    field.nth(next(i for i, value in enumerate(values) if value)).fill(text)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_words_are_found_as_the_node_finds_them(page: Page, case: dict[str, Any]):
    found, near = page.evaluate(
        """async ([file, text, word]) => { const words = await import(file);
           return [words.occurrences(text, word).length, words.nearMisses(text, word)[0] ?? ""]; }""",
        [WORDS, case["prompt"], case["word"]],
    )
    assert found == case["occurrences"]
    assert near == case["near"] or found


def test_the_colours_are_those_of_the_routers_map(page: Page):
    page_colours = page.evaluate("import('/extensions/moa-attention/elements.mjs').then(each => each.COLOURS)")
    assert page_colours == ["#" + "".join(f"{round(255 * float(part)):02x}" for part in colour) for colour in COLOURS]


def test_words_of_subjects_are_coloured(page: Page, helper: Locator):
    expect(helper.locator("mark")).to_have_text(["man", "woman"])
    write(page, "a woman at night, far behind her in the snow a man")
    expect(helper).to_have_text("a woman at night, … snow a man")
    expect(helper.locator("mark")).to_have_text(["woman", "man"])
    colours = helper.locator("mark").evaluate_all("all => all.map(each => each.title)")
    assert colours == ["Subject 2", "Subject 1"]


def test_a_missing_word_is_marked_and_the_near_miss_binds(page: Page, helper: Locator):
    write(page, "two women and a salaryman")
    expect(helper).to_contain_text("'man' is not in the prompt, only inside 'salaryman'.")
    expect(helper).to_contain_text("'woman' is not in the prompt.")
    helper.get_by_role("button", name="Use 'women'").click()
    expect(helper.locator("mark").first).to_have_text("women")
    words = page.evaluate(
        "window.app.graph._nodes.filter(n => n.type === 'SubjectEncode').map(n => n.widgets[0].value)"
    )
    assert sorted(words) == ["man", "women"]


@pytest.mark.parametrize("helper", [False], ids=["canvas"], indirect=True)
def test_the_helper_speaks_the_language_of_the_page(page: Page, helper: Locator):
    """After a change of the language the page loads the workflow again."""
    choose = f"""async language => {{ const before = {PROMPT};
        await window.app.extensionManager.setting.set('Comfy.Locale', language);
        while (!{PROMPT} || {PROMPT} === before) await new Promise(done => setTimeout(done, 50)); }}"""
    page.evaluate(choose, "fr")
    page.evaluate(f"{PROMPT}.widgets[0].value = 'two women and a salaryman'")
    expect(helper).to_contain_text("« man » n'est pas dans le prompt, seulement à l'intérieur de 'salaryman'.")
    expect(helper.get_by_role("button", name="Utiliser « women »")).to_be_visible()
    page.evaluate(choose, "en")


@pytest.mark.parametrize("helper", [False], ids=["canvas"], indirect=True)
def test_the_node_has_room_for_words_that_changed_outside_the_view(page: Page, helper: Locator):
    """The page hides the elements of nodes outside its view; a hidden element has no height."""
    expect(helper.locator("mark")).to_have_count(2)
    offset = page.evaluate("[...window.app.canvas.ds.offset]")
    look = "offset => { window.app.canvas.ds.offset = offset; window.app.canvas.setDirty(true, true); }"
    page.evaluate(look, [1e5, 1e5])
    expect(helper).to_be_hidden()
    page.evaluate(f"{PROMPT}.widgets[0].value = 'two women and a salaryman'")
    expect(helper).to_contain_text("'woman' is not in the prompt.")
    page.evaluate(look, offset)
    page.wait_for_function(
        f"""() => {{ const words = document.querySelector('.moa-prompt').firstChild;
            const widget = {PROMPT}.widgets.find(each => each.name === 'words');
            return words.offsetHeight > 40 && widget.computedHeight >= words.offsetHeight; }}"""
    )


def test_the_widget_is_neither_saved_nor_sent(page: Page, helper: Locator):
    expect(helper.locator("mark")).to_have_count(2)
    node = page.evaluate(f"{PROMPT}.serialize()")
    assert node["widgets_values"] == ["a man and a woman on a beach"]
    sent = page.evaluate(f"window.app.graphToPrompt().then(made => made.output[{PROMPT}.id].inputs)")
    assert set(sent) == {"clip", "text", "subjects.subject_0", "subjects.subject_1"}


def test_nodes_of_others_are_left_alone(page: Page):
    added = page.evaluate(
        """Object.keys(window.LiteGraph.registered_node_types).filter(type => !/^MoA/.test(type)).slice(0, 60)
           .filter(type => window.LiteGraph.createNode(type)?.widgets?.some(widget => /^moa/.test(widget.type)))"""
    )
    assert added == []
