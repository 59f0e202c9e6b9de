"""On uvloop, whose transports read into a buffer of their own, everything ends as on asyncio's loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import test_runs
import test_wire_faults
import uvloop


@test_wire_faults.each(test_wire_faults.FAULTS)
def test_a_fault_of_the_wire_ends_in_its_documented_error(row: test_wire_faults.Row, tmp_path: Path) -> None:
    uvloop.run(test_wire_faults.ended_in_its_error(row, tmp_path))


@pytest.mark.parametrize(
    "work",
    [
        test_runs.test_a_run_over_a_real_socket_keeps_account_of_every_id,
        test_runs.test_a_run_over_a_real_socket_creates_each_key_once,
    ],
)
def test_durable_runs_keep_their_account(work: Callable[[Path], Coroutine[Any, Any, None]], tmp_path: Path) -> None:
    uvloop.run(work(tmp_path))
