"""The folders inside ComfyUI's input folder. The page requests them again with every list of nodes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import folder_paths

DEPTH = 3
"""Folders inside folders that are listed."""


@dataclass
class FolderListing:
    """Folders below a root. One that has not changed since the last call costs one look at its modification time."""

    known: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    """By path: the modification time, and the names of the folders inside."""

    def below(self, root: str, depth: int = DEPTH) -> Iterator[str]:
        """Paths relative to `root`, with `/`, without links and without names that begin with a dot."""
        for name in self.names(root):
            yield name
            if depth > 1:
                yield from (f"{name}/{inner}" for inner in self.below(os.path.join(root, name), depth - 1))

    def names(self, folder: str) -> list[str]:
        """The folders directly inside; none where the folder cannot be read."""
        try:
            changed = os.stat(folder).st_mtime_ns
            before, names = self.known.get(folder, (None, []))
            if before != changed:
                with os.scandir(folder) as entries:
                    found = [e.name for e in entries if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
                names = sorted(found)
                self.known[folder] = changed, names
            return names
        except OSError:
            return []


LISTING = FolderListing()


def input_folders() -> list[str]:
    """Folders inside ComfyUI's input folder, in the order of their names."""
    return sorted(LISTING.below(folder_paths.get_input_directory()))
