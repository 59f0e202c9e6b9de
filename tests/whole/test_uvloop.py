"""On uvloop, whose transports read into a buffer of their own, everything ends as on asyncio's loop."""

from __future__ import annotations

from pathlib import Path

import uvloop
from wire_faults import FAULTS, Row, each, ended_in_its_error


@each(FAULTS)
def test_a_fault_of_the_wire_ends_in_its_documented_error(row: Row, tmp_path: Path) -> None:
    uvloop.run(ended_in_its_error(row, tmp_path))
