"""Ids that a command is given: counted or streamed, refused in terms of options before anything is asked."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from served import Cli

from invoicing_async.cli import stop
from invoicing_async.cli.exits import CommandError, Exit
from invoicing_async.cli.input import ids
from invoicing_async.cli.input.options import IdSource
from invoicing_async.cli.stop import Stop
from invoicing_async.ids import Feed
from invoicing_async.sandbox import Sandbox

pytestmark = pytest.mark.usefixtures("no_settings")


AS_LIST = "For ids alone, one a line, end its name in .txt, or give - < "


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("ids.csv", "order_id,total\nA,1\n", "Say which one has the ids: --column order_id"),
        ("ids.csv", "Order No,total\nA,1\n", "Say which one has the ids: --column 'Order No'"),
        (
            "a b.csv", "id\nA\n",
            f"Write --column id. If that is an id and not the column's name: {AS_LIST}'a b.csv'",
        ),
        ("ids", '{"order id": "A"}\n', "Say which one has the ids: --field 'order id'"),
        ("ids.jsonl", "{}\n", ""),
        ("ids.jsonl", "A\n", f"{AS_LIST}ids.jsonl"),
        ("ids.jsonl", "[\n", "Write one record a line, or one id a line, as `jq -c '.[]'` does."),
        ("ids", "A\n\u200b\n", ""),
    ],
)  # fmt: skip
def test_the_hint_says_what_to_write(name: str, text: str, hint: str) -> None:
    """An option with its value, quoted for a shell, or how a list is taken as it stands."""
    with pytest.raises(CommandError) as caught:
        list(ids.picked(io.BytesIO(text.encode()), name, IdSource()))
    assert (caught.value.hint, caught.value.code) == (hint, Exit.USAGE)


def test_nothing_is_given_of_a_file_with_a_bad_line(tmp_path: Path) -> None:
    """It is read through before it is used, and its ids are counted."""
    file = tmp_path / "ids.txt"
    file.write_text("A-1\nA-2\u200b\n")
    with pytest.raises(CommandError, match="line 2"), ids.open_ids(str(file), IdSource(), Stop(lambda: None)):
        pytest.fail("nothing may be asked for")
    file.write_bytes(b"A-1\r\rA-2\r")
    with ids.open_ids(str(file), IdSource(), Stop(lambda: None)) as found:
        assert found.about == 2
        assert list(found.items) == ["A-1", "A-2"]  # type: ignore[arg-type] # a file is read as it is


def test_a_file_is_counted_for_the_bar_and_read_as_it_is_taken(tmp_path: Path) -> None:
    """The number of lines is known beforehand; a header is not one of the ids."""
    quiet = stop.Stop(lambda: None)
    file = tmp_path / "ids.csv"
    file.write_text("id\na\nb\n")
    with ids.open_ids(str(file), IdSource(column="id"), quiet) as found:
        assert isinstance(found.items, Iterator)
        assert (found.about, list(found.items)) == (2, ["a", "b"])
    with ids.open_ids(str(file.rename(tmp_path / "ids.txt")), IdSource(), quiet) as found:
        assert found.about == 3
    with (
        pytest.raises(CommandError, match="exclude each other"),
        ids.open_ids(str(file), IdSource(column="id", field="id"), quiet),
    ):
        pass


@pytest.mark.asyncio
async def test_a_stop_wakes_who_waits_for_a_stream() -> None:
    """A stream that never says more does not keep a command from stopping."""
    gate = threading.Event()

    def silent() -> Iterator[int]:
        gate.wait(10)
        yield 1

    asked = stop.Stop(lambda: None)
    source = stop.CountedInput(asked)

    async def take() -> list[int]:
        feed = Feed(silent())
        asked.then(feed.end)
        items = source.items(feed)
        assert isinstance(items, AsyncIterator)
        return [item async for item in items]

    taken = asyncio.create_task(take())
    await asyncio.sleep(0.01)
    asked.ask()
    assert await taken == []
    assert source.cut
    gate.set()


@pytest.mark.parametrize("more", [(), ("--run", "m.db")])
@pytest.mark.parametrize(("name", "option"), [("ids.csv", "--column"), ("ids.jsonl", "--field")])
def test_the_commands_ask_for_nothing_and_exit_with_two(
    services: Callable[..., Sandbox], cli: Cli, name: str, option: str, more: tuple[str, ...]
) -> None:
    """Documents and waits alike; with the option that the error names, the same file is taken."""
    sandbox = services()
    rows = [f"order-{number}" for number in range(3)]
    table = "".join(f"{row},5\n" for row in ("id", *rows))
    text = table if option == "--column" else "".join(json.dumps({"id": row}) + "\n" for row in rows)
    Path(name).write_text(text)
    download = ("documents", "download", name, "--to", "out", *more)
    code, _, err = cli(*download)
    assert (code, sandbox.calls("document")) == (Exit.USAGE, 0)
    assert f"{option} id" in err
    assert not Path("m.db").exists()
    assert cli(*download, option, "id")[0] == Exit.DONE
    assert sandbox.calls("document") == 3
    code, _, err = cli("invoices", "wait", "--from", name)
    assert (code, sandbox.calls("status")) == (Exit.USAGE, 0)
    assert f"{option} id" in err
