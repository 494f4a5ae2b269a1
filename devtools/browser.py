"""Finds a Chromium-like browser on this machine; none is ever downloaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

COMMANDS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "{PROGRAMFILES}/Google/Chrome/Application/chrome.exe",
    "{PROGRAMFILES(X86)}/Microsoft/Edge/Application/msedge.exe",
    "{PROGRAMFILES}/Microsoft/Edge/Application/msedge.exe",
)


class NoBrowser(RuntimeError):
    """The browser tests need one; the message names those that serve."""


def find() -> Path:
    """The browser's program, `$CHROME` first.

    Raises:
        NoBrowser: there is none.
    """
    named = os.environ.get("CHROME")
    paths = [Path(named)] if named else []
    paths += [Path(found) for found in map(shutil.which, COMMANDS) if found]
    for place in PLACES:
        for variable in ("PROGRAMFILES(X86)", "PROGRAMFILES"):
            place = place.replace("{" + variable + "}", os.environ.get(variable, ""))
        paths.append(Path(place))
    for path in paths:
        if path.is_file():
            return path
    raise NoBrowser(
        "The browser tests need Chromium, Chrome or Edge. Debian and Ubuntu: apt install chromium; "
        "macOS: brew install --cask chromium; Windows has Edge. If your browser is elsewhere, set CHROME to its program."
    )
