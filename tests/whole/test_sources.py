"""A docstring that names the README as its source names a heading that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = set(re.findall(r"^#{2,4} ([A-C](?:\.\d+)?)[. ]", (ROOT / "README.md").read_text(), re.MULTILINE))


def test_every_source_is_a_heading() -> None:
    """`README B.1` and its like stand in the source only for headings of the README."""
    texts = [file.read_text() for folder in ("invoicing_async", "tests") for file in (ROOT / folder).rglob("*.py")]
    named = {heading for text in texts for heading in re.findall(r"README ([A-C](?:\.\d+)?)\b", text)}
    assert len(named) > 5
    assert named <= HEADINGS
