"""A real server, and its real page in a headless browser."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from devtools import archive  # noqa: E402
from devtools import browser as browsers  # noqa: E402
from devtools import host as hosts  # noqa: E402
from devtools.server import Server  # noqa: E402

TINY = ROOT / "tests" / "comfy" / "tiny_pack"
"""A checkpoint for tests."""
START_MS = 600_000
"""A busy machine takes its time."""
READY = """window.app?.extensionManager?.workflow?.activeWorkflow?.isLoaded
    && window.app.extensions.some(each => each.name === "MoA.Router")"""
"""The page is usable once its first workflow and the extensions of node packs are loaded."""


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the archive that users install, in an empty base folder."""
    folder = tmp_path_factory.mktemp("server")
    pack = archive.unpack(tmp_path_factory.mktemp("archive"))
    with Server(hosts.find(), Path(sys.executable), folder, packs=[pack, TINY], cpu=True) as running:
        running.post("/settings", {"Comfy.TutorialCompleted": True})  # else a dialog covers the canvas
        yield running


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = str(browsers.find())
        running = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture(scope="module")
def page(chromium: Browser, server: Server) -> Iterator[Page]:
    """The page, loaded and ready; at the end it must have reported no error of its own."""
    opened = chromium.new_page(viewport={"width": 1600, "height": 1000})
    errors: list[str] = []
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.set_default_timeout(START_MS)
    opened.goto(server.address, wait_until="domcontentloaded")
    opened.wait_for_function(READY)
    yield opened
    opened.close()
    assert not errors, errors


@pytest.fixture
def run(page: Page) -> Any:
    """`run(workflow)` loads a UI-format workflow, presses Run, waits; returns the last event's name and detail."""

    def load_and_press(workflow: dict[str, Any], timeout_s: int = 900) -> dict[str, Any]:
        page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
        page.evaluate(
            """() => { window.ended = null; for (const name of ["execution_success", "execution_error"])
               window.app.api.addEventListener(name, event => { window.ended = {name, detail: event.detail}; }); }"""
        )
        page.get_by_test_id("queue-button").click()
        page.wait_for_function("window.ended", timeout=timeout_s * 1000)
        return page.evaluate("window.ended")

    return load_and_press
