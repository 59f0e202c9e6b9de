"""Which machine this is, and which folders lie on a network's file system."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked import python

from invoicing_async._files import hosts, tempfile
from invoicing_async._files.hosts import host_id, is_on_network
from invoicing_async._files.names import temp_name
from invoicing_async._files.tempfile import prepare_folder

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:25 / {folder} rw,relatime shared:5 - {kind} server:/export rw
31 30 0:26 / {folder}/local\\040disk rw,relatime - tmpfs tmpfs rw
"""


def test_a_host_has_one_name_in_all_its_processes() -> None:
    code = "from invoicing_async._files.hosts import host_id\nprint(host_id())"
    with python(code) as other:
        out, err = other.communicate(30)
    assert out.decode().strip() == host_id(), err
    assert temp_name("a", 1, host=host_id())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("nfs4", True), ("nfs", True), ("cifs", True), ("9p", True), ("ceph", True), ("fuse.sshfs", True),
        ("fuse.s3fs", True),
        ("ext4", False), ("xfs", False), ("btrfs", False), ("overlay", False), ("zfs", False), ("tmpfs", False),
        ("fuseblk", False), ("fuse.mergerfs", False),
    ],
)  # fmt: skip
def test_a_folder_is_judged_by_the_mount_it_lies_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, expected: bool
) -> None:
    mounts, folder = tmp_path / "mountinfo", tmp_path / "share"
    mounts.write_text(MOUNTS.format(folder=folder, kind=kind))
    monkeypatch.setattr(hosts, "_MOUNTS", str(mounts))
    (folder / "in" / "2025").mkdir(parents=True)
    assert is_on_network(folder / "in" / "2025") is expected
    assert is_on_network(folder) is expected
    assert not is_on_network(folder / "local disk" / "in")
    assert not is_on_network(tmp_path / "sharex")
    (tmp_path / "link").symlink_to(folder)
    assert is_on_network(tmp_path / "link" / "in") is expected


def test_a_system_that_does_not_tell_is_taken_for_a_local_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_MOUNTS", str(tmp_path / "absent"))
    assert not is_on_network(tmp_path)


def test_on_a_network_nothing_is_swept_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = tmp_path / temp_name("dead", 1, host=host_id())
    for is_network in (True, False):
        dead.write_bytes(b"half")
        monkeypatch.setattr(tempfile, "is_on_network", lambda _, told=is_network: told)
        assert prepare_folder(tmp_path) is not is_network
        assert dead.exists() is is_network
