"""How many random examples a property is tried on."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings
from short_form import SHORT

__all__ = ["examples"]

SHARE = 1.0 if os.environ.get("INVOICING_THOROUGH") else 0.1 if SHORT else 0.3
"""The properties that take seconds are tried on a share of their examples, other ones in each run, in quick runs."""


def examples(count: int, **options: Any) -> settings:
    """Return settings for `count` examples, all of them where INVOICING_THOROUGH is set."""
    return settings(max_examples=max(3, int(count * SHARE)), deadline=None, **options)
