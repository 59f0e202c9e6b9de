"""`--to` takes the address of an object store, wherever documents are saved by command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from object_servers import moto_bucket, objects_in
from served import Cli, json_lines, write_drafts, write_ids

from invoicing_async.cli.exits import Exit
from invoicing_async.sandbox import Faults, Sandbox

pytestmark = [pytest.mark.usefixtures("no_settings"), pytest.mark.process]


@pytest.fixture
def bucket() -> Iterator[str]:
    with moto_bucket() as name:
        yield name


def test_a_run_saves_into_a_store_and_is_shown_verified_and_gone_on_with(
    services: Callable[..., Sandbox], tmp_path: Path, cli: Cli, bucket: str
) -> None:
    services(Faults())
    file, place = write_ids(tmp_path / "ids.txt", 5), f"s3://{bucket}/in/voices"
    code, out, _ = cli("documents", "download", file, "--to", place, "--run", "r.db", "--json")
    assert code == Exit.DONE
    assert {row["path"] for row in json_lines(out)} == {f"{place}/order-{number}.pdf" for number in range(5)}
    assert sorted(objects_in(bucket)) == [f"in/voices/order-{number}.pdf" for number in range(5)]
    code, out, _ = cli("runs", "show", "r.db", "--items")
    assert f"{place}/order-3.pdf" in out
    assert place in cli("runs", "show", "r.db")[1]
    assert cli("runs", "verify", "r.db")[0] == Exit.DONE
    assert cli("runs", "resume", "r.db")[0] == Exit.DONE
    write_ids(tmp_path / "ids.txt", 6)
    assert cli("documents", "download", file, "--to", place, "--run", "r.db")[0] == Exit.DONE
    assert len(objects_in(bucket)) == 6
    assert cli("runs", "resume", "r.db", "--to", f"s3://{bucket}/elsewhere/")[0] == Exit.DONE
    shown = json.loads(cli("runs", "show", "r.db", "--json")[1])
    assert (shown["settings"]["folder"], shown["settings"]["store"]) == (f"s3://{bucket}/elsewhere", place)


def test_documents_without_a_run_are_saved_into_a_store(
    services: Callable[..., Sandbox], tmp_path: Path, cli: Cli, bucket: str
) -> None:
    services(Faults())
    file = write_ids(tmp_path / "ids.txt", 3)
    for expected in ("saved", "skipped"):
        code, out, _ = cli("documents", "download", file, "--to", f"s3://{bucket}", "--json")
        assert code == Exit.DONE
        assert {row["outcome"] for row in json_lines(out)} == {expected}
    assert sorted(objects_in(bucket)) == [f"order-{number}.pdf" for number in range(3)]
    assert list(tmp_path.glob("s3*")) == []


def test_invoices_are_exported_into_a_store(
    services: Callable[..., Sandbox], tmp_path: Path, cli: Cli, bucket: str
) -> None:
    services()
    write_drafts(tmp_path / "d.jsonl", 2)
    tokens = ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to", f"s3://{bucket}/out")
    assert cli(*tokens)[0] == Exit.DONE
    assert len(objects_in(bucket)) == 2
    assert cli("runs", "verify", "i.db")[0] == Exit.DONE
    assert f"pdf to s3://{bucket}/out" in cli("runs", "show", "i.db")[1]


@pytest.mark.parametrize(
    "tokens",
    [
        ("documents", "download", "ids.txt", "--to"),
        ("documents", "download", "ids.txt", "--run", "r.db", "--to"),
        ("invoices", "submit", "d.jsonl", "--run", "i.db", "--export", "pdf", "--to"),
    ],
)
def test_an_address_that_holds_a_secret_is_refused_without_it(
    services: Callable[..., Sandbox], tmp_path: Path, cli: Cli, tokens: tuple[str, ...]
) -> None:
    services()
    write_ids(tmp_path / "ids.txt", 1)
    write_drafts(tmp_path / "d.jsonl", 1)
    code, out, err = cli(*tokens, "s3://key:planted-secret@bucket/in")
    assert code == Exit.USAGE
    assert "--to: the address of a store must hold no user, password or token" in err
    assert "planted" not in out + err
    assert not (tmp_path / "r.db").exists()
    assert not (tmp_path / "i.db").exists()


def test_without_the_extra_it_is_named(
    services: Callable[..., Sandbox], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    services()
    write_ids(tmp_path / "ids.txt", 1)
    monkeypatch.delitem(sys.modules, "invoicing_async._objects", raising=False)
    monkeypatch.delattr("invoicing_async._objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    code, _, err = cli("documents", "download", "ids.txt", "--to", "s3://bucket/in")
    assert code == Exit.USAGE
    assert "--to: object stores need the extra `objects`" in err
