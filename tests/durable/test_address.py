"""Where a run is kept, by the text of `--run`: every path is a path, and only what libpq takes is a server."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath
from string import ascii_letters, digits
from urllib.parse import quote

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from invoicing_async._durable.address import LONGEST, FileAddress, ServerAddress, run_address, server_address
from invoicing_async.runs import DocumentRun, InvoiceRun, LedgerAwayError, read_run, run_file

SECRET = "hunter2-canary"


@pytest.mark.parametrize(
    "text",
    [
        "march.db",
        "./march.db",
        "../runs/march.db",
        "/var/runs/march.db",
        "runs//march.db",
        "~/march.db",
        "-",
        ".",
        " march.db",
        "march db.db",
        "march%20.db",
        "march.db?run=x",
        "march@host.db",
        "run:march",
        "postgres",
        "postgresql",
        "postgresql.db",
        "postgres:march.db",
        "./postgresql://h/db?run=x",
        "runs/postgresql://h/db?run=x",
        "2://x",
        "://x",
        "//server/share/march.db",
        r"\\server\share\march.db",
        r"C:\runs\march.db",
        "C:/runs/march.db",
        "c://runs/march.db",
        "C:march.db",
        "sqlite:march.db",
        "file:/march.db",
        "Kế toán/tháng 3.db",
        "\N{FULLWIDTH LATIN SMALL LETTER P}ostgres://h/db",
    ],
)
def test_what_is_no_uri_is_the_path_of_a_file_as_it_stands(text: str) -> None:
    """Nothing is decoded, expanded or looked up."""
    assert run_address(text) == FileAddress(Path(text))
    assert run_file(text) == Path(text)


@pytest.mark.parametrize("path", [Path("march.db"), PurePosixPath("/a/b"), PureWindowsPath(r"C:\a\b"), Path()])
def test_a_path_is_a_path(path: PurePosixPath | PureWindowsPath) -> None:
    assert run_address(path) == FileAddress(Path(str(path)))


@pytest.mark.parametrize(
    ("text", "server", "run"),
    [
        ("postgresql://db.internal/invoicing?run=march", "db.internal/invoicing", "march"),
        ("postgres://h/db?run=march", "h/db", "march"),
        ("PostgreSQL://h/db?run=march", "h/db", "march"),
        ("  postgresql://h/db?run=march\n", "h/db", "march"),
        ("postgresql://h:5433/db?run=m", "h:5433/db", "m"),
        ("postgresql://h:/db?run=m", "h:/db", "m"),
        ("postgresql://u@h/db?run=m", "u@h/db", "m"),
        ("postgresql://u:@h/db?run=m", "u:@h/db", "m"),
        ("postgresql://u%40corp@h/db?run=m", "u%40corp@h/db", "m"),
        ("postgresql://u@/db?run=m", "u@/db", "m"),
        ("postgresql://?run=m", "", "m"),
        ("postgresql:///?run=m", "/", "m"),
        ("postgresql:///db?run=m", "/db", "m"),
        ("postgresql://h?run=m", "h", "m"),
        ("postgresql://%2Fvar%2Frun%2Fpostgresql/db?run=m", "%2Fvar%2Frun%2Fpostgresql/db", "m"),
        ("postgresql:///db?host=/var/run/postgresql&run=m", "/db?host=/var/run/postgresql", "m"),
        ("postgresql://[::1]/db?run=m", "[::1]/db", "m"),
        ("postgresql://[2001:db8::1]:5433/db?run=m", "[2001:db8::1]:5433/db", "m"),
        ("postgresql://[fe80::1%25eth0]/db?run=m", "[fe80::1%25eth0]/db", "m"),
        ("postgresql://u@a:1,[::1]:65535,c/db?run=m", "u@a:1,[::1]:65535,c/db", "m"),
        ("postgresql://a,b/db?target_session_attrs=read-write&run=m", "a,b/db?target_session_attrs=read-write", "m"),
        ("postgresql://h/db?run=m&sslmode=verify-full", "h/db?sslmode=verify-full", "m"),
        ("postgresql://h/db?a=1&run=m&b=", "h/db?a=1&b=", "m"),
        ("postgresql://h/db?passfile=/p&sslkey=/k&require_auth=scram-sha-256&run=m",
         "h/db?passfile=/p&sslkey=/k&require_auth=scram-sha-256", "m"),
        ("postgresql://h/db?service=billing&run=m", "h/db?service=billing", "m"),
        ("postgresql://h/db?run=th%C3%A1ng%203", "h/db", "tháng 3"),
        ("postgresql://h/db?run=a+b", "h/db", "a+b"),
        ("postgresql://h/db?r%75n=m", "h/db", "m"),
        ("postgresql://h/db?run=a%2Fb%3Fc%26d%3De", "h/db", "a/b?c&d=e"),
        ("postgresql://h/db?application_name=a@b&run=m", "h/db?application_name=a@b", "m"),
        ("postgresql://h:5432/db?application_name=a@b&run=m", "h:5432/db?application_name=a@b", "m"),
        ("postgresql://h/a/b?run=m", "h/a/b", "m"),
        ("postgresql://h/db#1?run=m", "h/db#1", "m"),
        (f"postgresql://h/db?run={'x' * LONGEST}", "h/db", "x" * LONGEST),
    ],
)  # fmt: skip
def test_a_server_and_the_name_of_a_run_are_read_as_libpq_reads_them(text: str, server: str, run: str) -> None:
    """What is the server's is handed on as it stands, without our own parameter."""
    assert run_address(text) == ServerAddress(f"postgresql://{server}", run)


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://u:{SECRET}@h/db?run=m",
        f"POSTGRES://u:{SECRET}@h/db?run=m",
        f" postgresql://u:{SECRET}@h/db?run=m",
        f"postgresql://u:{SECRET}@h/db",
        f"postgresql://u:{SECRET}@[::1]:0/db",
        f"postgresql://:{SECRET}@h/db?run=m",
        f"postgresql://u%40x:{SECRET}@h/db?run=m",
        f"postgresql://u:{SECRET}%40@h/db?run=m",
        f"postgresql://u:a@{SECRET}@h/db?run=m",
        f"postgresql://u@a:{SECRET}@h/db?run=m",
        f"postgresql://u:{SECRET}/a@h/db?run=m",
        f"postgresql://u:{SECRET}?a@h/db?run=m",
        f"postgresql://u:{SECRET},a@h/db?run=m",
        f"postgresql://u:{SECRET}#a@h/db?run=m",
        f"postgresql://u:{SECRET} a@h/db?run=m",
        f"postgresql://u:{SECRET}%zz@h/db?run=m",
        f"postgresql://h/db?password={SECRET}&run=m",
        f"postgresql://h/db?run=m&PassWord={SECRET}",
        f"postgresql://h/db?run=m&pass%77ord={SECRET}",
        f"postgresql://h/db?run=m&sslpassword={SECRET}",
        f"postgresql://h/db?run=m&oauth_client_secret={SECRET}",
        f"postgresql://h/db?run=m&scram_client_key={SECRET}",
        f"postgresql://h/db?password={SECRET}=a",
    ],
)
def test_a_password_is_refused_with_the_places_where_it_belongs_and_never_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"PGPASSWORD, a pass file, PGSERVICE or INVOICING_LEDGER") as caught:
        run_address(text)
    assert SECRET not in f"{caught.value!r}{caught.value.__cause__!r}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be named"),
        (" \t\n", "must be named"),
        ("postgresql:/h/db?run=m", "must be text"),
        (Path("postgresql://h/db?run=m"), "must be text"),
        (PureWindowsPath("postgresql://h/db?run=m"), "must be text"),
        (r"postgres:\\h\db", "must be text"),
        ("mysql://h/db?run=m", "not at mysql://"),
        ("sqlite:///march.db", "not at sqlite://"),
        ("file:///march.db", "not at file://"),
        ("https://h/db", "not at https://"),
        ("postgresql+psycopg://h/db?run=m", r"not at postgresql\+psycopg://"),
        ("jdbc:postgresql://h/db?run=m", None),
        ("postgresql://", "must name one run"),
        ("postgresql://h/db", "must name one run"),
        ("postgresql://h/db?", "must name one run"),
        ("postgresql://h/db?run=", "must name one run"),
        ("postgresql://h/db?run=%20", "must name one run"),
        ("postgresql://h/db?run=%20a", "must name one run"),
        ("postgresql://h/db?run=a%0Ab", "must name one run"),
        ("postgresql://h/db?run=a%E2%80%8Bb", "must name one run"),
        ("postgresql://h/db?run=a&run=a", "must name one run"),
        ("postgresql://h/db?run=a&r%75n=b", "must name one run"),
        (f"postgresql://h/db?run={'x' * (LONGEST + 1)}", "must name one run"),
        ("postgresql://h/db?sslmode=require", "must name one run"),
        ("postgresql://h/db?run", "must be NAME=VALUE"),
        ("postgresql://h/db?run=a=b", "must be NAME=VALUE"),
        ("postgresql://h/db?run=a&", "must be NAME=VALUE"),
        ("postgresql://h/db?&run=a", "must be NAME=VALUE"),
        ("postgresql://h/db?=a&run=m", "must be NAME=VALUE"),
        ("postgresql://h/db?Run=a", "must be NAME=VALUE"),
        ("postgresql://h/db?run=m?a", None),
        ("postgresql://h:x/db?run=m", "the host"),
        ("postgresql://h:0/db?run=m", "the host"),
        ("postgresql://h:65536/db?run=m", "the host"),
        ("postgresql://h:-1/db?run=m", "the host"),
        ("postgresql://h:1:2/db?run=m", "the host"),
        ("postgresql://h:\N{ARABIC-INDIC DIGIT ONE}/db?run=m", "the host"),
        ("postgresql://::1/db?run=m", "the host"),
        ("postgresql://[::1/db?run=m", "the host"),
        ("postgresql://::1]/db?run=m", "the host"),
        ("postgresql://[::1]x/db?run=m", "the host"),
        ("postgresql://[]/db?run=m", "the host"),
        ("postgresql://[127.0.0.1]/db?run=m", "the host"),
        ("postgresql://[::g]/db?run=m", "the host"),
        ("postgresql://a,b:x/db?run=m", "the host"),
        ("postgresql://a@b@h/db?run=m", "percent-encoded, as %40"),
        ("postgresql://h/d@b?run=m", "percent-encoded, as %40"),
        ("postgresql://h/d b?run=m", "percent-encoded"),
        ("postgresql://h/db?run=th\u00e1ng", "percent-encoded"),
        ("postgresql://h/d\nb?run=m", "percent-encoded"),
        ("postgresql://h/db?run=%", "percent-encoded"),
        ("postgresql://h/db?run=%4", "percent-encoded"),
        ("postgresql://h/%zz?run=m", "percent-encoded"),
        ("postgresql://h/db?run=a%00b", "percent-encoded"),
        ("postgresql://h/db?run=%FF", "must be UTF-8"),
        ("postgresql://h/db?%FF=a&run=m", "must be UTF-8"),
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_with_what_is_wrong(text: str | Path, said: str | None) -> None:
    """None: it is taken as libpq, or the file system, takes it."""
    if said is None:
        run_address(text)
        return
    with pytest.raises(ValueError, match=said):
        run_address(text)


LETTERS = st.sampled_from(ascii_letters + digits + "-.")
NAMES = st.text(st.sampled_from("aZ0 +%/?&=@:#[],;'\"ếñ中😀"), min_size=1, max_size=12).map(lambda text: f"<{text}>")


@given(NAMES, st.lists(st.text(LETTERS, max_size=8), min_size=1, max_size=3), NAMES, st.booleans())
@examples(100)
def test_any_name_comes_back_from_an_address_that_is_made_of_it(
    run: str,
    hosts: list[str],
    database: str,
    before: bool,  # noqa: FBT001 - a property's argument
) -> None:
    own, others = f"run={quote(run, safe='')}", "sslmode=require"
    server = f"postgresql://{','.join(hosts)}/{quote(database, safe='')}"
    text = f"{server}?{own}&{others}" if before else f"{server}?{others}&{own}"
    assert run_address(text) == ServerAddress(f"{server}?{others}", run)


@given(st.text(max_size=20))
@examples(100)
def test_any_password_is_refused_as_one_and_not_repeated(text: str) -> None:
    """Whatever it is of, and however it is cut by what stands in it."""
    with pytest.raises(ValueError, match="PGPASSWORD") as caught:
        run_address(f"postgresql://u:{SECRET}{text}@h/db?run=m")
    assert SECRET not in repr(caught.value)


@given(st.text(max_size=40))
@examples(100)
def test_any_text_is_an_address_or_refused_in_a_sentence(text: str) -> None:
    for each in (text, f"postgresql://{text}", f"postgresql://h/db?run={text}"):
        try:
            run_address(each)
        except ValueError as error:
            told = error
        else:
            continue
        assert type(told) is ValueError
        assert "\n" not in str(told)


@pytest.mark.asyncio
async def test_a_run_on_a_server_is_looked_for_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is made of its address on the disk."""
    pytest.importorskip("psycopg")
    monkeypatch.chdir(tmp_path)
    where = "postgresql://127.0.0.1:1/db?run=m"
    for opening in (InvoiceRun.open(where), DocumentRun.open(where, folder="out"), read_run(where)):
        with pytest.raises(LedgerAwayError, match="the database of postgresql://127"):
            async with opening:
                pass
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["march", "th\u00e1ng 3", "a+b", "a/b?c&d=e", "50%"])
@pytest.mark.parametrize("server", ["postgresql://h/db", "postgresql://u@[::1]:5433/db?sslmode=require"])
def test_the_text_of_an_address_names_the_same_run(server: str, name: str) -> None:
    address = ServerAddress(server, name)
    assert run_address(address.text) == address


@pytest.mark.parametrize(
    ("text", "server", "run"),
    [
        ("postgresql://h/db", "postgresql://h/db", ""),
        ("postgres://h/db?sslmode=require", "postgresql://h/db?sslmode=require", ""),
        ("postgresql://h/db?sslmode=require&run=march", "postgresql://h/db?sslmode=require", "march"),
    ],
)
def test_a_server_is_named_with_or_without_a_run(text: str, server: str, run: str) -> None:
    assert server_address(text) == ServerAddress(server, run)


@pytest.mark.parametrize("text", ["march.db", "", "sqlite://h/db", "postgresql:/h/db", "postgresql://h/db?run="])
def test_what_names_no_server_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must (be as in|name one run)"):
        server_address(text)


def test_a_password_beside_a_server_without_a_run_is_refused() -> None:
    with pytest.raises(ValueError, match="PGPASSWORD") as caught:
        server_address(f"postgresql://u:{SECRET}@h/db")
    assert SECRET not in str(caught.value)
