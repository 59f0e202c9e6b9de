"""How the command line reaches the network: proxies and authorities from options, settings and the environment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer

import pytest
from leaks import kept_in_frames, shown
from served import Cli, clean

from invoicing_async.cli.exits import CommandError
from invoicing_async.cli.input.options import Common

PASSWORD = "hush-of-the-proxy"
ENVIRONMENT = {
    "INVOICING_DOCUMENTS_BASE_URL": "http://service.test/api/v1",
    "INVOICING_DOCUMENTS_PARTNER_CLIENT_ID": "p",
    "INVOICING_DOCUMENTS_SECRET_KEY": "k",
    "INVOICING_DOCUMENTS_STORE_CLIENT_ID": "c",
    "INVOICING_DOCUMENTS_STORE_TOKEN": "t",
}


@contextmanager
def proxying() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """A proxy that reaches nobody: its address, and what it was asked and by whom."""
    asked: list[tuple[str, str | None]] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.headers.get("Proxy-Authorization")))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - its name there

    with TCPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", asked
        finally:
            server.shutdown()
            thread.join()


Downloading = Callable[..., tuple[int, str]]


@pytest.fixture
def downloading(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Downloading:
    """Download one document with these options and in this environment: the exit code and all that was printed."""
    clean(monkeypatch)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ids").write_text("o-1\n")

    def download(*options: str, **environment: str) -> tuple[int, str]:
        for name, value in {**ENVIRONMENT, **environment}.items():
            monkeypatch.setenv(name, value)
        code, out, err = cli("documents", "download", "ids", "--to", "out", "--attempts", "1", *options)
        return code, out + err

    return download


ASKED = "http://service.test/api/v1/partner/stores/orders/o-1/documents/invoice"
BASIC = "Basic Y2xlcms6aHVzaC1vZi10aGUtcHJveHk="


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "INVOICING_PROXY"])
def test_a_proxy_of_the_environment_is_followed_with_its_password(downloading: Downloading, name: str) -> None:
    with proxying() as (address, asked):
        code, shown = downloading(**{name: f"http://clerk:{PASSWORD}@{address}"})
    assert (code, asked) == (1, [(ASKED, BASIC)])
    assert PASSWORD not in shown


@pytest.mark.parametrize("option", ["http://{}", "{}"])
def test_the_options_proxy_goes_before_the_environments(downloading: Downloading, option: str) -> None:
    with proxying() as (address, asked):
        code, _ = downloading("--proxy", option.format(address), HTTP_PROXY="http://127.0.0.1:9")
    assert (code, asked) == (1, [(ASKED, None)])


def test_a_proxy_may_stand_in_the_file_of_settings(downloading: Downloading, tmp_path: Path) -> None:
    with proxying() as (address, asked):
        (tmp_path / "settings").write_text(f"INVOICING_PROXY=http://clerk:{PASSWORD}@{address}\n")
        downloading("--env-file", "settings")
    assert asked == [(ASKED, BASIC)]


@pytest.mark.parametrize(
    "value", [f"http://clerk:{PASSWORD}@proxy:1", f"clerk:{PASSWORD}@proxy", f"http://{PASSWORD}@proxy"]
)
@pytest.mark.parametrize("debug", [(), ("--debug",)])
def test_a_password_in_the_option_is_refused_and_not_shown(
    downloading: Downloading, value: str, debug: tuple[str, ...]
) -> None:
    """Everybody on the machine sees the arguments of a process."""
    code, shown = downloading("--proxy", value, *debug)
    assert code == 2
    assert "--proxy must hold no user or password" in " ".join(shown.split())
    assert "INVOICING_PROXY" in shown
    assert PASSWORD not in shown


@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        (("--proxy", "socks5://proxy:1"), {}, "--proxy must be an HTTP proxy"),
        (("--proxy", "http://proxy:port"), {}, "--proxy is not a URL"),
        ((), {"INVOICING_PROXY": f"socks5://a:{PASSWORD}@proxy:1"}, "INVOICING_PROXY must be an HTTP proxy"),
        ((), {"HTTPS_PROXY": f"socks5://a:{PASSWORD}@proxy:1"}, "HTTPS_PROXY must be an HTTP proxy"),
        (("--ca-file", "absent.pem"), {}, "--ca-file: absent.pem: No such file"),
        ((), {"INVOICING_CA_FILE": "absent.pem"}, "INVOICING_CA_FILE: absent.pem: No such file"),
        (("--ca-file", "ids"), {}, "--ca-file: ids: holds no certificate in PEM form"),
    ],
)
def test_what_cannot_be_used_is_named(
    downloading: Downloading, options: tuple[str, ...], environment: Mapping[str, str], says: str
) -> None:
    code, shown = downloading(*options, **environment)
    assert code == 2
    assert says in " ".join(shown.split())
    assert PASSWORD not in shown


def test_no_frame_of_a_refused_option_holds_its_password() -> None:
    with pytest.raises(CommandError) as caught:
        Common(proxy=f"http://clerk:{PASSWORD}@proxy").settings()
    assert PASSWORD not in shown(caught.value) + kept_in_frames(caught.value)


def test_a_command_to_be_given_again_has_the_options_of_the_network() -> None:
    assert Common(env_file=Path("s"), proxy="proxy:1", ca_file=Path("ca.pem")).again == (
        "--env-file", "s", "--proxy", "proxy:1", "--ca-file", "ca.pem",
    )  # fmt: skip
    assert Common().again == ()


def test_doctor_names_the_proxy_without_its_password(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    clean(monkeypatch)
    for name, value in {**ENVIRONMENT, "HTTP_PROXY": f"http://clerk:{PASSWORD}@proxy:3128"}.items():
        monkeypatch.setenv(name, value)
    _, out, _ = cli("doctor")
    assert "calls go through http://proxy:3128" in out
    assert PASSWORD not in out
