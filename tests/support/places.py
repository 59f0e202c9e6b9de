"""Where the repository's files are that tests read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUPPORT = Path(__file__).parent
"""What the tests share; a process of its own that shares it too has it on its path."""
TESTS = SUPPORT.parent
ROOT = TESTS.parent
README = ROOT / "README.md"


def signing_vectors() -> list[dict[str, Any]]:
    """Return the stages of signatures that another tool computed."""
    vectors: list[dict[str, Any]] = json.loads((TESTS / "vectors" / "signing.json").read_text("utf-8"))
    return vectors
