"""Folders of documents: made, made durable, and tried."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["make_folder", "sync_folder"]


def make_folder(folder: Path, *, durable: bool) -> None:
    """Make a folder and those above it; a durable one's name is on the disk as its files are."""
    missing = [made for made in (folder, *folder.parents) if not made.is_dir()] if durable else []
    os.makedirs(folder, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def sync_folder(folder: Path) -> None:
    """See to it that the names in a folder are on the disk."""
    if sys.platform == "win32":  # pragma: no cover - which has no way to ask for it
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
