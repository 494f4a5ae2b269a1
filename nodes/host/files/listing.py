"""The names of files in the host's folders, also while a folder is away: renamed, deleted, or on a disk that is not connected."""

from __future__ import annotations

import folder_paths


def file_names(folder: str) -> list[str]:
    """The files in the host's folders of that name.

    The host's own function raises where a folder is gone that it listed before. It asks for the lists of all nodes of a
    workflow outside of its error handling, so that such an error would end the thread that runs workflows.
    """
    try:
        return folder_paths.get_filename_list(folder)
    except OSError:
        return folder_paths.get_filename_list_(folder)[0]
