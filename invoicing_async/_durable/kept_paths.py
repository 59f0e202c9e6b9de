"""How a run keeps where its files are: by their names below the run's store, so that no host's own path is kept.

The store of a run is its setting `store`, set when the run is made (of e-invoices: when it is first exported) and never
changed. A file below it is kept by its name with slashes; one elsewhere, as after `move`, and one of a run that was
made before there was such a setting, is kept whole. What a ledger returns is always whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Self

from attrs import evolve, frozen

from .records import Change, Item

__all__ = ["STORE", "KeptPaths", "is_whole"]

STORE = "store"
"""The setting: a folder's absolute path, or an object store's address."""


def is_whole(path: str) -> bool:
    """Tell whether it is an absolute path or an address; a name below a store is neither."""
    return "://" in path or os.path.isabs(path)  # noqa: PTH117 - asked for every item


@frozen
class KeptPaths:
    """Paths as a ledger keeps them, and as it returns them."""

    _store: str = ""
    """The store, with the separator behind it; empty for a run without one."""

    @classmethod
    def of(cls, settings: Mapping[str, object]) -> Self:
        """Return how a run with these settings keeps paths."""
        store = settings.get(STORE)
        if not isinstance(store, str) or not store:
            return cls()
        separator = "/" if "://" in store else os.sep
        return cls(store.removesuffix(separator) + separator)

    def kept(self, path: str | None) -> str | None:
        """Return what is kept of a path."""
        if path is None or not self._store or not path.startswith(self._store):
            return path
        return path[len(self._store) :].replace(os.sep, "/")

    def whole(self, path: str | None) -> str | None:
        """Return the path that was kept."""
        if path is None or not self._store or is_whole(path):
            return path
        return self._store + (path if "://" in self._store else path.replace("/", os.sep))

    def item(self, item: Item) -> Item:
        """Return an item as it is given out."""
        whole = self.whole(item.path)
        return item if whole == item.path else evolve(item, path=whole)

    def lack(self, items: Iterable[Item]) -> bool:
        """Tell whether one of these items is kept by a name, though no store is known."""
        return not self._store and any(item.path is not None and not is_whole(item.path) for item in items)

    def changes(self, changes: Iterable[Change]) -> tuple[Change, ...]:
        """Return changes as they are kept."""
        return tuple(
            change if change.path is None else evolve(change, path=self.kept(change.path)) for change in changes
        )
