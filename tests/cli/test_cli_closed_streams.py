"""A standard stream that the caller has closed ends no command by a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform == "win32", reason="a shell closes the streams"),
]

SETTINGS = {
    "BASE_URL": "http://127.0.0.1:9",
    "PARTNER_CLIENT_ID": "p",
    "SECRET_KEY": "k",
    "STORE_CLIENT_ID": "c",
    "STORE_TOKEN": "t",
}


def code(folder: Path, source: str, closed: str) -> int:
    command = f'exec "$0" -m invoicing_async documents download {source} --to out --attempts 1 {closed}'
    environment = {**os.environ, **{f"INVOICING_DOCUMENTS_{name}": value for name, value in SETTINGS.items()}}
    return subprocess.run(
        ["/bin/sh", "-c", command, sys.executable],
        cwd=folder,
        env=environment,
        capture_output=True,
        timeout=50,
        check=False,
    ).returncode


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_changes_no_exit_code(tmp_path: Path, closed: str) -> None:
    (tmp_path / "ids.txt").write_text("a\n")
    assert code(tmp_path, "ids.txt", closed) == code(tmp_path, "ids.txt", "") == 1


def test_ids_from_a_closed_stdin_are_an_error(tmp_path: Path) -> None:
    assert code(tmp_path, "-", "<&-") > 0


@pytest.mark.process
@pytest.mark.parametrize("words", ["schema", "completion zsh", "runs --help", "--help", "doctor"])
def test_a_reader_that_has_left_is_no_trouble(words: str) -> None:
    """As `| head -1` leaves: nothing is said of it."""
    read, write = os.pipe()
    os.close(read)
    try:
        command = [sys.executable, "-m", "invoicing_async", *words.split()]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=50, check=False)
    finally:
        os.close(write)
    assert done.stderr == b""
    assert done.returncode in {0, 1, 3}
