"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, and rename it to `path` when the block ends.

    A block that raises leaves `path` as it was and removes the temporary file. The new file is on the disk before it gets
    its name, so that a power failure leaves the old or the new one. Its permissions follow the umask, whatever the writer
    in the block chose.
    """
    part = path.with_name(path.name + ".part")
    try:
        part.touch()
        mode = part.stat().st_mode  # reading the umask itself would change it for other threads
        yield part
        os.chmod(part, mode)
        flush(part, os.O_RDWR)
        os.replace(part, path)
        if os.name == "posix":  # Windows has no folders that can be opened
            flush(path.parent, os.O_RDONLY)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def flush(path: Path, access: int) -> None:
    """Wait until the disk has what was written to a file, or the names of a folder."""
    number = os.open(path, access)
    try:
        os.fsync(number)
    finally:
        os.close(number)
