"""What stands below the help of each command: lines to be copied, and how commands end."""

from __future__ import annotations

from collections.abc import Mapping

from .terminal.output import Output

__all__ = ["EXAMPLES", "show_examples"]

_EXITS = "0 all done, 1 some items are not, 2 usage or settings, 3 stopped before the end, 70 a fault of the program"

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "": (
        "invoicing-async demo",
        "invoicing-async doctor --online --env-file invoicing.env",
        "source <(invoicing-async completion bash)",
    ),
    "completion": (
        "source <(invoicing-async completion bash)                  # also in ~/.bashrc",
        "invoicing-async completion zsh > ~/.zfunc/_invoicing-async  # a folder of $fpath",
        "invoicing-async completion fish > ~/.config/fish/completions/invoicing-async.fish",
    ),
    "demo": ("invoicing-async demo", "invoicing-async demo --orders 200 --invoices 0 --to demo"),
    "doctor": (
        "invoicing-async doctor",
        "invoicing-async doctor --online --env-file invoicing.env",
        "invoicing-async doctor --online --json | jq -r 'select(.grade == \"bad\") | .hint'",
    ),
    "documents": ("invoicing-async documents download orders.txt --to invoices",),
    "documents download": (
        "invoicing-async documents download orders.txt --to invoices",
        "invoicing-async documents download orders.csv --column order_id --to invoices --run march.db",
        "psql -Atc 'select id from orders' | invoicing-async documents download - --to invoices --report march.csv",
        "invoicing-async documents download orders.txt --to invoices --layout '{date:%Y/%m}/{order_id}'",
    ),
    "invoices": ("invoicing-async invoices submit drafts.csv --run march.db --wait",),
    "invoices example": (
        "invoicing-async invoices example --format csv > drafts.csv",
        "invoicing-async invoices example --count 3 > drafts.jsonl",
    ),
    "invoices status": (
        "invoicing-async invoices status 5f0c5b1e-6d53-4b6e-8e0c-7b1f6a0f3c55",
        "invoicing-async invoices status 5f0c5b1e-6d53-4b6e-8e0c-7b1f6a0f3c55 --json | jq -r .outcome",
    ),
    "invoices submit": (
        "invoicing-async invoices submit drafts.csv --run march.db --export pdf --to einvoices",
        "invoicing-async invoices submit drafts.jsonl --wait --report march.csv",
        "invoicing-async invoices submit drafts.csv --decimal-mark , --rounding 1 --run march.db",
        "invoicing-async invoices submit drafts.csv --wait --run 'postgresql://db.internal/invoicing?run=march'",
    ),
    "invoices wait": (
        "invoicing-async invoices wait 5f0c5b1e-6d53-4b6e-8e0c-7b1f6a0f3c55",
        "invoicing-async invoices wait --from march.csv --column request_id --timeout 3600",
    ),
    "ledger": ("invoicing-async ledger migrate postgresql://db.internal/invoicing",),
    "ledger check": ("invoicing-async ledger check postgresql://db.internal/invoicing",),
    "ledger migrate": ("invoicing-async ledger migrate postgresql://db.internal/invoicing",),
    "runs": ("invoicing-async runs show march.db", "invoicing-async runs resume march.db"),
    "runs accept-lost-log": ("invoicing-async runs accept-lost-log march.db",),
    "runs export": (
        "invoicing-async runs export march.db doubts.csv --state in_doubt",
        "invoicing-async runs export march.db --state failed --state rejected --json",
    ),
    "runs import": ("invoicing-async runs import march.db --run 'postgresql://db.internal/invoicing?run=march'",),
    "runs pause": ("invoicing-async runs pause 'postgresql://db.internal/invoicing?run=march'",),
    "runs refresh": ("invoicing-async runs refresh march.db --report authority.csv",),
    "runs report": ("invoicing-async runs report march.db --html march.html",),
    "runs resolve": (
        "invoicing-async runs resolve march.db ORDER-7 --as not-created",
        "invoicing-async runs resolve march.db ORDER-8 --as created --request-id 5f0c5b1e-6d53-4b6e-8e0c-7b1f6a0f3c55",
        "invoicing-async runs resolve march.db --from doubts.csv",
    ),
    "runs resume": (
        "invoicing-async runs resume march.db",
        "invoicing-async runs resume march.db --concurrency 4 --report march.csv",
    ),
    "runs retry": (
        "invoicing-async runs retry march.db ORDER-7",
        "invoicing-async runs retry march.db --state rejected --code VALIDATION_001",
    ),
    "runs show": (
        "invoicing-async runs show march.db",
        "invoicing-async runs show march.db --state in_doubt --json | jq -r .key",
        "invoicing-async runs show 'postgresql://db.internal/invoicing?run=march' --watch",
    ),
    "runs unhalt": (
        "invoicing-async runs unhalt 'postgresql://db.internal/invoicing?run=march' --doubt-since 2026-03-31T04:00",
    ),
    "runs unpause": ("invoicing-async runs unpause 'postgresql://db.internal/invoicing?run=march'",),
    "runs verify": ("invoicing-async runs verify march.db --report files.csv",),
    "sandbox": (
        "invoicing-async sandbox > sandbox.env",
        "invoicing-async sandbox --documents-port 0 --lost-share 0.1 --fault outage:60,start=30",
    ),
    "schema": (
        "invoicing-async schema documents download > download.schema.json",
        "invoicing-async schema | jq '.\"$defs\" | keys'",
    ),
    "worker": (
        "invoicing-async worker --run 'postgresql://db.internal/invoicing?run=march' --until-done",
        "invoicing-async worker --run 'postgresql://db.internal/invoicing?run=march' --status /run/invoicing.json",
    ),
    "sign": (
        "invoicing-async sign d0e11047-acaf-468f-a325-3d2f5964f5ff",
        "invoicing-async sign --method GET --path /partner/stores --timestamp 1750000000000 --json",
    ),
}
"""By the words of each command; none for the whole."""


def show_examples(output: Output, command: str) -> None:
    """Print the examples of a command below its help, unbroken, so that they can be copied."""
    output.say("\nExamples", "bold")
    for line in EXAMPLES.get(command, ()):
        output.say(f"  {line}")
    if not command:
        output.say(f"\nExit codes: {_EXITS}", "dim")
