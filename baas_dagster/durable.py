"""Files that survive a power loss: a content is on the disk before it has its name, the name before it is believed.

Belongs here: putting a file or a folder in place so that it is whole or absent after a crash of the machine. Does not
belong here: what is in the file, and who may believe the name (the catalogue, which commits after it).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

__all__ = ["make_folder", "put_in_place", "sync"]


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk. OSError where the disk cannot take them."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:  # a file system that cannot be waited for
            raise
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, their names on the disk; nothing happens where it is there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        sync(folder.parent)


def put_in_place(temporary: Path, final: Path) -> None:
    """Give a finished file or folder its name: under it is found what was before, or this, never a part."""
    sync(temporary)
    temporary.replace(final)
    sync(final.parent)
