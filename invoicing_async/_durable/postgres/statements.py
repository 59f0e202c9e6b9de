"""The statements that write a run, each as one text; the rules in them are made from the table of states and the fence.

Whether a change may be made is judged by the database, on rows that it has locked: whoever asks knows only where an
item stood when it was read. Names of states are literals where an index is made for them alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..fence import fenced
from ..states import TABLE, Event, State

__all__ = [
    "CHANGE",
    "CHANGE_WITHIN",
    "END_WORKER",
    "EVENTS_UNTIL",
    "GROUPS",
    "HALT",
    "HEARTBEAT",
    "KEY_OF_SEQ",
    "OWNED",
    "OWNER_OF_REQUEST",
    "RECORD_DOCUMENTS",
    "REGISTER",
    "SEQ_OF_KEY",
    "TAKE_TURN",
    "WRITTEN",
]

NOT_KNOWN, OWN, OTHER = "", "own", "other"
"""What attempt an event bears: none, that of the item as it stands, another."""


def _rules() -> Iterator[str]:
    """Yield what is allowed: the event, what it bears and where the item stands; what it is then, and what follows."""
    for event in Event:
        for bears, attempt in ((NOT_KNOWN, None), (OWN, 1), (OTHER, 0)):
            for state in State:
                applied = fenced(event, attempt, state=state, attempt=1)
                after = None if applied is None else TABLE[state, applied]
                if applied is not None and isinstance(after, State):
                    yield f"('{event.value} {bears} {state.value}', '{applied.value}', '{after.value}')"


_INTENT, _LATE_ACCEPT = Event.INTENT.value, Event.LATE_ACCEPT.value

_MOMENT = "coalesce(to_timestamp($4::double precision), clock_timestamp())"
"""The time by which everything is recorded: the database's own, in tests that of a clock."""

_TURN = """
    UPDATE invoicing.workers SET groups = groups + 1, done = done + $5::integer
    WHERE worker = $2 AND groups = $3::bigint - 1 RETURNING worker
"""
"""Counts the group. A statement that was held up, and was meanwhile repeated on another connection, finds its turn
gone and does nothing."""

_PART = "$3::bigint / 512"
"""The part of a worker's counts that a group belongs to."""

# Items are looked up by the run that stands beside each number, not by $1: a run that is younger than the figures of
# ANALYZE is held to have one item, and then all of it would be read, once for each of them. They are locked one by one
# in the order of their numbers, so that two groups never wait for each other.

_IN_TRANSACTION = "SELECT $5::integer AS worker"
"""The turn was taken by a statement before, in the same transaction."""

_CHANGE = f"""
WITH turn AS ({{turn}}
), run AS MATERIALIZED (
    SELECT halted IS NOT NULL AS halted, paused IS NOT NULL AS paused, {_MOMENT} AS at
    FROM invoicing.runs WHERE run = $1
), asked AS MATERIALIZED (
    SELECT $1::integer AS run, asked.* FROM unnest(
        $6::bigint[], $7::text[], $8::integer[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[],
        $14::text[], $15::bigint[], $16::text[], $17::text[]
    ) WITH ORDINALITY AS asked (
        seq, event, bears, request_id, invoice_id, result, code, error, path, size, sha256, detail, place
    )
), held AS MATERIALIZED (
    SELECT held.* FROM (SELECT run, seq FROM asked ORDER BY seq) AS asked CROSS JOIN LATERAL (
        SELECT seq, state, attempt, request_id, other_request_id FROM invoicing.items AS item
        WHERE item.run = asked.run AND item.seq = asked.seq AND EXISTS (SELECT FROM turn) FOR NO KEY UPDATE
    ) AS held
), judged AS MATERIALIZED (
    SELECT asked.*, held.state AS before, held.attempt AS attempt, rule.applied, rule.after, run.at,
        CASE
            WHEN asked.event = '{_INTENT}' AND held.other_request_id IS NOT NULL THEN 'twice'
            WHEN rule.applied = '{_INTENT}' AND run.halted THEN 'halted'
            WHEN rule.applied = '{_INTENT}' AND run.paused THEN 'paused'
            WHEN asked.bears IS NOT NULL AND rule.applied = '{_LATE_ACCEPT}'
                AND lower(asked.request_id) IN (lower(held.request_id), lower(held.other_request_id)) THEN 'known'
            WHEN rule.after IS NULL THEN 'refused'
        END AS why
    FROM run CROSS JOIN asked LEFT JOIN held USING (seq) LEFT JOIN (VALUES {", ".join(_rules())})
        AS rule (condition, applied, after) ON rule.condition = concat(
            asked.event, ' ', CASE asked.bears = held.attempt WHEN true THEN '{OWN}' WHEN false THEN '{OTHER}' END,
            ' ', held.state
        )
), made AS MATERIALIZED (
    SELECT * FROM judged WHERE why IS NULL
), changed AS (
    UPDATE invoicing.items AS item SET
        state = made.after, updated = made.at,
        attempt = CASE made.applied WHEN '{_INTENT}' THEN item.attempt + 1 ELSE item.attempt END,
        owner = CASE made.applied WHEN '{_INTENT}' THEN $2 ELSE item.owner END,
        sent_at = CASE made.applied WHEN '{_INTENT}' THEN made.at ELSE item.sent_at END,
        code = CASE made.applied WHEN '{_LATE_ACCEPT}' THEN item.code ELSE made.code END,
        error = CASE made.applied WHEN '{_LATE_ACCEPT}' THEN item.error ELSE made.error END,
        other_request_id = CASE made.applied
            WHEN '{_LATE_ACCEPT}' THEN made.request_id ELSE item.other_request_id END,
        request_id = CASE made.applied
            WHEN '{_LATE_ACCEPT}' THEN item.request_id ELSE coalesce(made.request_id, item.request_id) END,
        invoice_id = CASE made.applied
            WHEN '{_LATE_ACCEPT}' THEN item.invoice_id ELSE coalesce(made.invoice_id, item.invoice_id) END,
        result = CASE made.applied WHEN '{_LATE_ACCEPT}' THEN item.result ELSE coalesce(made.result, item.result) END,
        path = coalesce(made.path, item.path), size = coalesce(made.size, item.size),
        sha256 = coalesce(made.sha256, item.sha256)
    FROM made WHERE item.run = made.run AND item.seq = made.seq
), entered AS (
    INSERT INTO invoicing.journal (run, item, event, attempt, at, worker, grp, detail)
    SELECT $1, seq, applied, CASE applied WHEN '{_INTENT}' THEN attempt + 1 ELSE coalesce(bears, attempt) END, at,
        $2, $3, CASE applied WHEN '{_INTENT}' THEN '{{{{"attempt":' || attempt + 1 || '}}}}' ELSE detail END
    FROM made ORDER BY place
), counted AS (
    INSERT INTO invoicing.tally AS tally (run, state, worker, part, count)
    SELECT $1, move.state, $2, {_PART}, sum(move.count)
    FROM made CROSS JOIN LATERAL (VALUES (made.before, -1), (made.after, 1)) AS move (state, count)
    GROUP BY move.state HAVING sum(move.count) <> 0 ORDER BY move.state
    ON CONFLICT (run, state, worker, part) DO UPDATE SET count = tally.count + excluded.count
)
SELECT EXISTS (SELECT FROM turn), extract(epoch FROM max(at))::double precision, string_agg(
    CASE WHEN why IS NULL THEN after ELSE concat(why, ' ', coalesce(before, '-'), ' ', coalesce(attempt, 0)) END,
    ',' ORDER BY place
) FROM judged
"""  # noqa: S608 - made of constants

CHANGE = _CHANGE.format(turn=_TURN).encode()
"""Makes changes of distinct items as a transaction of its own.

Parameters: run, worker, number of the group, time, how many of them count as done; then an array each of `seq`, event,
attempt that it bears, and what was learned. Tells whether its turn was still there, the time, and for each change the
state that follows, or why it was not made, the state and the attempt.
"""

CHANGE_WITHIN = _CHANGE.format(turn=_IN_TRANSACTION).encode()
"""The same within a transaction."""

TAKE_TURN = _TURN.replace("$5::integer", "0").replace("$2", "$1").replace("$3", "$2").encode()
"""Counts the group of a transaction, as its first statement. Parameters: worker, number of the group."""

RECORD_DOCUMENTS = f"""
WITH turn AS ({_TURN}
), asked AS MATERIALIZED (
    SELECT $1::integer AS run, asked.* FROM unnest(
        $6::bigint[], $7::text[], $8::integer[], $9::text[], $10::text[], $11::bigint[], $12::text[], $13::text[],
        $14::text[], $15::integer[]
    ) WITH ORDINALITY AS asked (seq, state, attempt, request_id, path, size, sha256, code, error, begun, place)
), held AS MATERIALIZED (
    SELECT held.*, {_MOMENT} AS at FROM (SELECT run, seq FROM asked ORDER BY seq) AS asked CROSS JOIN LATERAL (
        SELECT seq, state AS before, attempt AS stood FROM invoicing.items AS item
        WHERE item.run = asked.run AND item.seq = asked.seq AND EXISTS (SELECT FROM turn) FOR NO KEY UPDATE
    ) AS held
), made AS MATERIALIZED (
    SELECT asked.*, held.before, held.at FROM asked JOIN held USING (seq)
    WHERE coalesce(asked.begun = held.stood, true)
), changed AS (
    UPDATE invoicing.items AS item SET
        state = made.state, attempt = made.attempt, request_id = made.request_id, path = made.path, size = made.size,
        sha256 = made.sha256, code = made.code, error = made.error, updated = made.at, owner = $2
    FROM made WHERE item.run = made.run AND item.seq = made.seq
), counted AS (
    INSERT INTO invoicing.tally AS tally (run, state, worker, part, count)
    SELECT $1, move.state, $2, {_PART}, sum(move.count)
    FROM made CROSS JOIN LATERAL (VALUES (made.before, -1), (made.state, 1)) AS move (state, count)
    GROUP BY move.state HAVING sum(move.count) <> 0 ORDER BY move.state
    ON CONFLICT (run, state, worker, part) DO UPDATE SET count = tally.count + excluded.count
)
SELECT EXISTS (SELECT FROM turn), extract(epoch FROM max(made.at))::double precision,
    string_agg(
        CASE WHEN made.seq IS NOT NULL THEN made.state WHEN held.seq IS NULL THEN 'unknown' ELSE 'superseded' END,
        ',' ORDER BY asked.place
    )
FROM asked LEFT JOIN made USING (place) LEFT JOIN held ON held.seq = asked.seq
""".encode()  # noqa: S608 - made of constants
"""Records the outcomes of distinct order documents, with parameters and an answer as `CHANGE`."""

SEQ_OF_KEY = b"SELECT seq FROM invoicing.items WHERE run = $1 AND key = $2"

KEY_OF_SEQ = b"SELECT key FROM invoicing.items WHERE run = $1 AND seq = $2"

OWNED = b"SELECT seq, attempt, owner FROM invoicing.items WHERE run = $1 AND seq = ANY ($2::bigint[])"
"""In which attempt items stand, and which worker was the last to record one."""

OWNER_OF_REQUEST = b"""
SELECT seq, key FROM invoicing.items
WHERE run = $1 AND lower(request_id) = lower($2::text COLLATE "C") AND request_id IS NOT NULL
    AND payload_sha256 IS NOT NULL AND seq <> $3::bigint
"""

WRITTEN = b"""
SELECT item, id FROM invoicing.journal
WHERE run = $1 AND item = ANY ($2::bigint[]) AND worker = $3::integer AND grp = $4::bigint
"""
"""What a group has written of some items, each of which it has once."""

EVENTS_UNTIL = b"""
SELECT event FROM invoicing.journal WHERE run = $1 AND item = $2::bigint AND id <= $3::bigint ORDER BY id
"""

REGISTER = b"""
INSERT INTO invoicing.workers (run, host, pid, version, started, heartbeat)
SELECT $1, $2, $3, $4, at, at
FROM (SELECT coalesce(to_timestamp($5::double precision), clock_timestamp()) AS at) AS moment
RETURNING worker, (1000000 * extract(epoch FROM started))::bigint
"""

GROUPS = b"""
SELECT groups FROM invoicing.workers
WHERE worker = $1 AND run = $2 AND host = $3 AND pid = $4
    AND (1000000 * extract(epoch FROM started))::bigint = $5::bigint
FOR NO KEY UPDATE
"""
"""How many groups a worker has committed; a statement of its own that is still at work is waited for."""

HEARTBEAT = b"""
UPDATE invoicing.workers SET heartbeat = coalesce(to_timestamp($2::double precision), clock_timestamp())
WHERE worker = $1
"""

END_WORKER = b"""
UPDATE invoicing.workers SET ended = coalesce(to_timestamp($2::double precision), clock_timestamp())
WHERE worker = $1
"""

HALT = b"""
UPDATE invoicing.runs SET halted = coalesce(to_timestamp($2::double precision), clock_timestamp()), halted_why = $3
WHERE run = $1 AND halted IS NULL
"""

UPDATE_SETTINGS = b"UPDATE invoicing.runs SET settings = $2 WHERE run = $1"

KEEP_LATE = b"UPDATE invoicing.runs SET late = greatest(late, $2::double precision) WHERE run = $1 RETURNING late"

WRITE_PAUSE = b"""
INSERT INTO invoicing.pauses (run, operation, begun, until, is_over)
VALUES ($1, $2, to_timestamp($3::double precision), to_timestamp($4::double precision), $5)
ON CONFLICT (run, operation, begun) DO UPDATE SET until = excluded.until, is_over = excluded.is_over
"""

LAST_EVENT = b"""
SELECT event FROM invoicing.journal WHERE run = $1 AND item = $2::bigint AND event <> $3 ORDER BY id DESC LIMIT 1
"""

FORGET_REQUEST = b"UPDATE invoicing.items SET request_id = NULL WHERE run = $1 AND seq = $2::bigint"

LOCK_ITEM = b"SELECT seq FROM invoicing.items WHERE run = $1 AND seq = $2::bigint FOR NO KEY UPDATE"

CREATE_RUN = b"""
INSERT INTO invoicing.runs (name, kind, settings, created)
VALUES ($1, $2, $3, coalesce(to_timestamp($4::double precision), clock_timestamp()))
ON CONFLICT (name) DO NOTHING
"""

BEAT = b"""
UPDATE invoicing.workers AS worker SET doing = $4, slots = $5::integer,
    heartbeat = coalesce(to_timestamp($3::double precision), clock_timestamp())
FROM invoicing.runs AS run WHERE worker.worker = $2 AND run.run = $1
RETURNING run.paused IS NOT NULL, run.halted IS NOT NULL
"""

OUTDATED = f"""
SELECT item.seq, item.attempt FROM invoicing.runs AS run JOIN invoicing.items AS item ON item.run = run.run
WHERE run.run = $1 AND item.run = $1 AND item.state = '{State.SENDING.value}'
    AND item.sent_at <= coalesce(to_timestamp($2::double precision), clock_timestamp())
        - make_interval(secs => run.late)
ORDER BY item.sent_at LIMIT $3::integer
""".encode()  # noqa: S608 - made of constants
"""What is being sent for longer than anything may still arrive."""

PAUSE_RUN = b"""
UPDATE invoicing.runs SET paused = coalesce(to_timestamp($2::double precision), clock_timestamp())
WHERE run = $1 AND paused IS NULL
"""

UNPAUSE_RUN = b"UPDATE invoicing.runs SET paused = NULL WHERE run = $1"

HALTED = b"SELECT extract(epoch FROM halted)::double precision FROM invoicing.runs WHERE run = $1 FOR NO KEY UPDATE"

UNHALT = b"UPDATE invoicing.runs SET halted = NULL, halted_why = NULL WHERE run = $1"

DOUBTFUL = f"""
SELECT seq FROM invoicing.items
WHERE run = $1 AND seq > $3::bigint AND updated <= to_timestamp($2::double precision)
    AND state IN ({
    ", ".join(
        f"'{state.value}'"
        for state in State
        if TABLE[state, Event.LOG_LOST] is State.IN_DOUBT and state is not State.IN_DOUBT
    )
})
ORDER BY seq LIMIT $4::integer
""".encode()  # noqa: S608 - made of constants
"""What may have been sent before a run was halted, without this database knowing it."""

LEFT_NOW = b"""
UPDATE invoicing.items SET sent_at = updated WHERE run = $1 AND seq = ANY ($2::bigint[])
"""
"""As far as is known they left at this moment: none of them is settled before nothing can arrive any more."""
