"""Where documents are saved, by the text that names it: a folder, or a bucket of an object store with a prefix.

Nothing is opened or asked here. An error never repeats what stands in an address: a secret may be anywhere in one that
is written wrongly.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

from attrs import frozen

__all__ = ["SCHEMES", "ObjectAddress", "where_of"]

SCHEMES = ("s3", "gs", "az", "memory")
"""S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage; `memory` is for tests."""

EXAMPLES = "s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
LONGEST = 512
"""Bytes of a prefix: with the longest names behind it still a key, which has 1,024."""

_ADDRESS = re.compile(r"\s*(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
_COLLAPSED = re.compile(rf"(?:{'|'.join(SCHEMES)}):[/\\\\][^/\\\\]")
"""An address that went through a `Path`, which leaves one slash of two."""
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NO_SECRET = (
    "the address of a store must hold no user, password or token: everybody on this machine sees the arguments of a "  # noqa: S105 - a sentence
    "process; credentials are taken from the environment"
)


@frozen
class ObjectAddress:
    """A bucket or container, and the prefix of all names in it, without slashes at its ends; it may be empty."""

    scheme: str
    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{self.root}/{self.prefix}" if self.prefix else self.root

    @property
    def root(self) -> str:
        """The address of the bucket."""
        return f"{self.scheme}://{self.bucket}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read an address. Raises `ValueError` for one that is none, or holds what may be a secret."""
        found = _ADDRESS.fullmatch(text.rstrip())
        if found is None or (scheme := found["scheme"].lower()) not in SCHEMES:
            raise ValueError(f"documents are saved in a folder or at {EXAMPLES}, not at an address of another kind")
        rest = found["rest"]
        if "@" in rest or "?" in rest or "#" in rest:
            raise ValueError(NO_SECRET)
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f"the bucket in the address of a store is none; it must be as in {EXAMPLES}")
        prefix = prefix.removesuffix("/")
        is_path = all(part and part not in {".", ".."} and part.isprintable() for part in prefix.split("/"))
        if (prefix and not is_path) or len(prefix.encode("utf-8", "surrogatepass")) > LONGEST:
            raise ValueError(
                f"the prefix in the address of a store must be names with / between, without . and .., "
                f"of {LONGEST} bytes at most"
            )
        return cls(scheme, bucket, prefix)

    @classmethod
    def split(cls, text: str) -> tuple[Self, str]:
        """Return the bucket, and the name below it, of an object's address that this library wrote."""
        scheme, _, rest = text.partition("://")
        bucket, _, name = rest.partition("/")
        return cls(scheme, bucket), name


def where_of(where: str | os.PathLike[str]) -> Path | ObjectAddress:
    """Return where documents are saved: text that begins as an address is one, all else is the path of a folder.

    Raises `ValueError` as `ObjectAddress.read` does, and for an address that was made a `Path`.
    """
    text = os.fspath(where)
    if isinstance(where, str) and _ADDRESS.match(text):
        return ObjectAddress.read(text)
    if not isinstance(where, str) and _COLLAPSED.match(text):
        raise ValueError("the address of a store must be text: a path has one slash where an address has two")
    return Path(where)
