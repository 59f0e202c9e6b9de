"""`sandbox`: both services in miniature on this machine until Ctrl-C, with the settings that reach them."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getdoc
from typing import Annotated

from cyclopts import Parameter

from ...sandbox import FAULT_KINDS, Fault, Faults, Sandbox, SandboxSettings
from ..exits import CommandError, Exit
from ..input.options import FLAG, Common
from ..serving import served, variables
from ..stop import Stop, listening
from ..terminal.output import Output

__all__ = ["sandbox"]

_FAULTS = "\n\n".join(
    [
        "Make the services misbehave: KIND[:VALUE][,NAME=VALUE...]. Of several, a call meets the first one first.",
        *(f"{made.example}: {(getdoc(made) or '').partition('.')[0]}." for made in FAULT_KINDS.values()),
        "Every kind takes start, length and every (seconds: from when, for how long, again after) and operation.",
        "Those that hit single calls take share, seed, first (tries of one request) and times (calls in all).",
    ]
)


def _misbehaving(box: Sandbox, faults: Iterable[str]) -> Sandbox:
    """Put the faults in force. Raises `CommandError` naming the one that is wrong, its field and the limit."""
    made: list[Fault] = []
    for text in faults:
        try:
            made.append(Fault.parse(text))
            box.inject(*made)
        except ValueError as error:
            raise CommandError(f"--fault {text!r}: {error}") from None
    return box


async def sandbox(
    *,
    documents_port: int = 8701,
    invoices_port: int = 8702,
    host: str = "127.0.0.1",
    seed: int = 0,
    latency: float = 0.02,
    unavailable_share: float = 0.1,
    not_eligible_share: float = 0.02,
    rate_limited_share: float = 0.0,
    failed_share: float = 0.1,
    lost_share: float = 0.0,
    quick: Annotated[bool, FLAG] = False,
    fault: Annotated[list[str] | None, Parameter(negative="", help=_FAULTS)] = None,
) -> int:
    """Serve both services in miniature until Ctrl-C; their settings are printed, for a shell or --env-file.

    Parameters
    ----------
    documents_port
        The port of the order documents; 0 takes a free one.
    invoices_port
        The port of the e-invoices; 0 takes a free one.
    host
        The address to listen on.
    seed
        What the faults are drawn from: with the same one, the same id gets the same answers again.
    latency
        Seconds that every answer takes.
    unavailable_share
        Share of orders, from 0 to 1, whose first call is answered SYS_DEP_503.
    not_eligible_share
        Share of orders that are always answered ORDER_021.
    rate_limited_share
        Share of orders whose first call is answered 429.
    failed_share
        Share of e-invoices that end FAILED.
    lost_share
        Share of submissions whose answer never arrives, though the invoice is made.
    quick
        E-invoices are done at the first poll, not after up to four.
    """
    output = Output.of(Common())
    try:
        settings = SandboxSettings(seed=seed, latency=latency)
        faults = Faults(
            unavailable_share=unavailable_share,
            not_eligible_share=not_eligible_share,
            rate_limited_share=rate_limited_share,
            failed_share=failed_share,
            lost_share=lost_share,
            polls_until_done=(1, 1) if quick else (1, 4),
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    stop = Stop(lambda: None)
    box = _misbehaving(Sandbox(settings, faults=faults), fault or ())
    with listening(stop):
        async with served(box, host=host, documents_port=documents_port, invoices_port=invoices_port) as where:
            for name, value in variables(box, where).items():
                output.out.print(f"export {name}={value}", markup=False, soft_wrap=True)
            output.out.file.flush()
            output.err.print("\nBoth services are up; Ctrl-C ends them.", style="dim")
            await stop.wait()
    output.err.print(f"{box.counts.total():,} requests answered", style="dim")
    for injected, counts in box.injected.items():
        told = ", ".join(f"{what} {number:,}" for what, number in sorted(counts.items())) or "nothing"
        output.err.print(f"{injected}: {told}", style="dim", markup=False, soft_wrap=True)
    return Exit.DONE
