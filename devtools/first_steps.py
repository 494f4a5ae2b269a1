"""Makes docs/first-steps.md from a real session: `.venv/bin/python -m devtools.first_steps`.

The archive that users install runs in an empty ComfyUI. The browser test takes the same steps.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from playwright.sync_api import Page

from . import archive, demo
from .draw_workflow import browser_on_server, open_page
from .host import ROOT
from .walkthrough import Walkthrough

RUN_MS = 600_000
"""A busy machine takes its time."""
TEMPLATE = "two_people_mini"
OTHER = demo.EXAMPLES / "references" / "moa_man_2.png"


def first_steps(page: Page, folder: Path) -> str:
    """Take all steps on a ready page, write the documentation page with its pictures, and return it.

    Raises: playwright's errors where the page does not come to show what a step is about; AssertionError where a message is
    another one.
    """
    walk = Walkthrough(page, folder)
    walk.write("# First steps")
    walk.write(
        "This page shows the first minutes in an empty ComfyUI. Nothing is downloaded, and no file is copied by hand.\n"
        "`.venv/bin/python -m devtools.first_steps` makes the page and its pictures from a real session."
    )
    first_picture(walk)
    own_picture(walk)
    the_map(walk)
    mistakes(walk)
    return walk.save()


def first_picture(walk: Walkthrough) -> None:
    """The template's card, and its pictures."""
    page = walk.page
    walk.write("## 1. Open a template")
    page.evaluate("window.app.extensionManager.command.execute('Comfy.BrowseTemplates')")
    page.get_by_placeholder("Search").last.fill(TEMPLATE)
    card = page.get_by_text(TEMPLATE, exact=True).first
    card.wait_for()
    page.wait_for_timeout(1500)
    walk.write(f"Open *Templates*, search for *{TEMPLATE}*, and click the card.")
    walk.show("1-card", "The card in the list of templates")
    card.click()
    page.wait_for_function("window.app.graph._nodes.some(node => node.type === 'ApplyMoA')")
    page.locator(".moa-prompt mark").nth(1).wait_for()
    walk.write(
        "The reference pictures are there already. The prompt shows the words that become the two people, in the colours of their maps."
    )
    walk.show("2-workflow", "The workflow before the first run")
    walk.write("## 2. Run")
    ended = walk.run()
    assert not ended["message"], ended
    assert "man, woman: active in" in ended["notes"], ended
    page.wait_for_function("window.app.graph._nodes.filter(node => node.imgs?.length).length >= 5")
    walk.write(
        "Press *Run*. *With your people* shows the two people, *Base model alone* the same prompt and seed without them. *Apply MoA* shows in\n"
        "how many steps the subjects were active."
    )
    walk.show("3-pictures", "The pictures with the two people, without them, and the router's map")


def own_picture(walk: Walkthrough) -> None:
    """Another reference, another prompt."""
    page = walk.page
    walk.write("## 3. Drop another reference")
    walk.drop("The man", OTHER)
    page.wait_for_function(
        "name => window.app.graph._nodes.find(n => n.title === 'The man').widgets[0].value.includes(name)",
        arg=OTHER.stem,
    )
    ended = walk.run()
    assert not ended["message"], ended
    walk.write(
        "Drop a picture onto *The man* and run again. The man changes; the woman and the beach stay almost as they were."
    )
    walk.focus("With your people")
    walk.show("4-other-man", "The same prompt with another man")
    walk.write("## 4. Change the prompt")
    walk.set("The prompt", "text", "a man and a woman in the snow")
    ended = walk.run()
    assert not ended["message"], ended
    walk.write(
        "Write another scene, and keep the words *man* and *woman*. The note *Read me* lists the scenes that MoA Mini knows."
    )
    walk.show("5-snow", "The same people in the snow")


def the_map(walk: Walkthrough) -> None:
    """The sliders of the router's map."""
    page = walk.page
    walk.write("## 5. See where each person is")
    walk.set("Router's map", "mode", "subjects")
    ended = walk.run()
    assert not ended["message"], ended
    walk.focus("Router's map")
    page.locator(".moa-router button").click()
    page.locator(".moa-router canvas").wait_for()
    page.locator(".moa-router").get_by_label("step").fill("12")
    walk.write(
        "In *Visualize MoA Router*, set *mode* to `subjects`. After a run, *Show steps, layers and subjects* opens the picture with sliders.\n"
        "To see the map while the picture is being made, switch on `live_map` in *Apply MoA*."
    )
    walk.show("6-map", "Each person in a colour, in one step")


MISTAKES = [
    ("7-missing-word", "The prompt lacks the word", ("The prompt", "text", "a man and two women in the snow"), "message",
     "Subject 'woman' (occurrence 1) is not in the prompt",
     "The node marks the word before the run, and offers *women* instead. If you run nevertheless, nothing is sampled, and *View details*\n"
     "shows the message."),
    ("8-same-word", "Two subjects have the same word", ("Encode the woman", "word", "man"), "message",
     "Two subjects are bound to the same 'man'", "Give each subject its own word, or set *occurrence* to 2 for the second *man*."),
    ("9-no-region", "The router *mask* has no region", ("Apply MoA", "router", "mask"), "message",
     "a subject of the prompt has no region", "The router *mask* puts each subject into its region, which *Subject Settings (MoA)* takes from a mask."),
    ("10-strength-0", "The strength is 0", ("Apply MoA", "strength", 0), "notes",
     "No subject takes part: 'strength' in 'Apply MoA' is 0.", "The run succeeds, and the pictures are the base model's. A line on *Apply MoA* has the reason."),
    ("11-size", "The size is one that MoA Mini does not know", ("Size and number", "width", 256), "notes",
     "256", "The run succeeds. A line on *Apply MoA* has the sizes that MoA Mini was trained with."),
]  # fmt: skip
"""Picture, heading, the change (node, input, value), where its message is, a part of it, and what to do."""


def mistakes(walk: Walkthrough) -> None:
    """Five mistakes and their messages; each is taken back."""
    walk.write("## 6. Five mistakes and their messages")
    for name, heading, change, where, expected, advice in MISTAKES:
        before = walk.page.evaluate(
            "([title, name]) => window.app.graph._nodes.find(n => n.title === title).widgets.find(w => w.name === name).value",
            list(change[:2]),
        )
        walk.set(*change)
        walk.page.wait_for_timeout(1000)  # the page marks what is wrong
        found = walk.run()[where]
        assert expected in found, found
        line = next(line for line in found.splitlines() if expected in line)
        walk.write(f"### {heading}")
        walk.write(f"> {line}")
        walk.write(advice)
        walk.focus("The prompt" if "word" in heading else "Apply MoA")
        if where == "message":
            walk.details(expected)
        walk.show(name, heading.replace("*", ""))
        if where == "message":
            walk.page.get_by_test_id("properties-panel").get_by_role("button", name="Toggle properties panel").click()
        walk.set(change[0], change[1], before)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as unpacked,
        browser_on_server(archive.unpack(Path(unpacked))) as (chromium, address),
    ):
        page = open_page(chromium, address)
        page.set_default_timeout(RUN_MS)
        first_steps(page, ROOT / "docs")


if __name__ == "__main__":
    main()
