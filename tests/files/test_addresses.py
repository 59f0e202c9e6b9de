"""Where documents are saved, by its text: what is an address, what a folder, and what must not stand in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from invoicing_async._files.addresses import ObjectAddress, where_of
from invoicing_async.stores import checked_place


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", ObjectAddress("s3", "bucket")),
        ("s3://bucket/", ObjectAddress("s3", "bucket")),
        ("S3://bucket/a", ObjectAddress("s3", "bucket", "a")),
        ("gs://my-bucket.example/2025/09/", ObjectAddress("gs", "my-bucket.example", "2025/09")),
        ("az://container/hóa đơn", ObjectAddress("az", "container", "hóa đơn")),
        (" s3://bucket/a ", ObjectAddress("s3", "bucket", "a")),
    ],
)
def test_an_address_is_read(text: str, expected: ObjectAddress) -> None:
    found = where_of(text)
    assert found == expected
    assert where_of(str(found)) == expected


@pytest.mark.parametrize("text", ["in", "/in/voices", "./s3:", "s3:", "s3:/x", "C:\\in", "a b", "s3/bucket", "~/x", ""])
def test_all_else_is_a_folder(text: str) -> None:
    assert where_of(text) == Path(text)


@pytest.mark.parametrize(
    "text",
    [
        "s3://AKIA:planted-secret@bucket/a",
        "s3://AKIA:planted/secret@bucket",
        "s3://planted-secret@bucket",
        "az://container/a?sig=planted-secret",
        "gs://bucket/a#planted-secret",
    ],
)
def test_what_may_be_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="must hold no user, password or token") as caught:
        where_of(text)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("http://bucket/a", "not at an address of another kind"),
        ("file:///in", "not at an address of another kind"),
        ("postgresql://host/x", "not at an address of another kind"),
        ("s3:///a", "the bucket in the address of a store is none"),
        ("s3://", "the bucket"),
        ("s3://-b", "the bucket"),
        ("s3://b/a//c", "the prefix in the address"),
        ("s3://b/../c", "the prefix"),
        ("s3://b/./c", "the prefix"),
        ("s3://b/a\tb", "the prefix"),
        ("s3://b/" + "a" * 513, "512 bytes"),
    ],
)
def test_what_is_no_address_is_refused(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        where_of(text)


def test_an_address_that_went_through_a_path_is_refused() -> None:
    """A path has one slash where an address has two: documents would go into a folder named `s3:`."""
    with pytest.raises(ValueError, match="must be text"):
        where_of(Path("s3://bucket/a"))
    assert where_of(Path("x/s3:/bucket")) == Path("x/s3:/bucket")


def test_an_objects_address_is_split_into_bucket_and_name() -> None:
    assert ObjectAddress.split("s3://bucket/a/b c.pdf") == (ObjectAddress("s3", "bucket"), "a/b c.pdf")


def test_a_place_is_checked_before_anything_is_begun(tmp_path: Path) -> None:
    assert checked_place(tmp_path) == tmp_path
    assert checked_place("S3://bucket/a/") == "s3://bucket/a"
    with pytest.raises(ValueError, match="another kind"):
        checked_place("ftp://host/a")
