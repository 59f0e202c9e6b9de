"""Which machine this is, and whether a folder lies on another one's disk."""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

__all__ = ["host_id", "is_on_network"]

_NETWORK = frozenset(
    {"nfs", "nfs4", "cifs", "smb", "smb2", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p", "virtiofs", "ceph",
     "glusterfs", "lustre", "beegfs", "gfs2", "ocfs2", "gpfs", "pvfs2", "orangefs", "davfs", "fuse"}
)  # fmt: skip
"""Types of file system that several hosts may have mounted; of `fuse.…` all but what is below."""

_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.ntfs-3g", "fuse.mergerfs"})

_MOUNTS = "/proc/self/mountinfo"
_OCTAL = re.compile(rb"\\([0-7]{3})")


@lru_cache(maxsize=1)
def host_id() -> str:
    """Return a short name of this machine, the same for all its processes: a digest of its name and its machine id.

    Containers that share both share a kernel too, whose locks they all see.
    """
    machine = b""
    with suppress(OSError):
        machine = Path("/etc/machine-id").read_bytes().strip()
    return sha256(platform.node().encode("utf-8", "surrogateescape") + b"\0" + machine).hexdigest()[:8]


def is_on_network(folder: Path) -> bool:
    """Tell whether a folder lies on a file system of a network, where the locks of others may not be seen.

    False where the system does not tell.
    """
    where = os.path.realpath(folder)
    if sys.platform == "win32":  # pragma: no cover - what the tests run on has mounts
        return where.startswith("\\\\")
    kind = _type_of(os.fsencode(where))
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def _type_of(where: bytes) -> str:
    """Return the type of the file system that a path lies on, by the longest mount point above it."""
    found, longest = "", -1
    with suppress(OSError), open(_MOUNTS, "rb") as mounts:
        for line in mounts:
            above, _, below = line.partition(b" - ")
            point = _OCTAL.sub(lambda code: bytes([int(code[1], 8)]), above.split()[4])
            if len(point) >= longest and (where == point or where.startswith(point.rstrip(b"/") + b"/")):
                found, longest = below.split()[0].decode("ascii", "replace"), len(point)
    return found
