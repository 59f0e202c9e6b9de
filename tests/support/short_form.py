"""The short form of the long tests: `INVOICING_SHORT=1` before pytest, as the project's own check gives it."""

from __future__ import annotations

import os

import pytest

__all__ = ["IN_FULL", "SHORT"]

SHORT = bool(os.environ.get("INVOICING_SHORT"))

IN_FULL = pytest.mark.skipif(SHORT, reason="long, and like one that is not skipped: in full only")
"""Marks a test, or one of its parameters, that the short form leaves out."""
