"""One request as a sandbox recorded it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from attrs import field, frozen

from ..models import RequestStatus
from ..sandbox import Operation
from ..sandbox._schema import parse

__all__ = ["RecordedRequest"]

FINAL = frozenset({RequestStatus.SUCCESS.value, RequestStatus.FAILED.value})


@frozen(kw_only=True)
class RecordedRequest:
    """One request as it arrived, and what was answered.

    `at` is epoch seconds on the sandbox's clock. `path` is below the base URL and quoted, `ids` are the ids in it
    unquoted: an order's for a document, a request's for a status, an invoice's for an export. `headers` have lower-case
    names; they hold the credential, so the repr leaves them out. `body` is exactly what was sent. `status` is the
    answer's, None if none left, `answer` its body as the service made it; `delivered` tells whether the caller read it
    to its end; on a port, whether it was written to its end, since nobody there learns what was read. `objection` says
    why the credential was not accepted and is empty if it was.
    """

    at: float
    operation: Operation
    method: str
    path: str
    query: str = ""
    ids: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    status: int | None = None
    answer: bytes = field(default=b"", repr=False)
    delivered: bool = False
    objection: str = ""

    def __str__(self) -> str:
        answered = "no answer" if self.status is None else str(self.status)
        about = f" {self.ids[0]}" if self.ids else ""
        return f"{self.operation.value}{about}: {self.method} {self.path}, {answered}"

    @property
    def json(self) -> Any:
        """The body read as JSON, its numbers as `Decimal`. Raises `ValueError` for what is not strict JSON."""
        return parse(self.body)

    @property
    def told(self) -> tuple[str, str] | None:
        """The request id and the status (NEW, SUCCESS, FAILED) that the caller was told; None if none was.

        Only a submission and a status poll tell them (README B.1, B.2).
        """
        tells = self.operation in {Operation.SUBMIT, Operation.STATUS}
        if not tells or not self.delivered or self.status != HTTPStatus.OK:
            return None
        try:
            content = parse(self.answer)
            return str(content["request_id"]), str(content["status"])
        except (ValueError, TypeError, KeyError):
            return None
