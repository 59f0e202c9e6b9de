"""The statements by which those who work on a run share its rate and its pauses. Every time in them is the database's.

A lease and a look return rows of one shape: the time, until when the rate is leased, the rate, and of each lane that is
paused or held its name, since when, the time of the next probe, the distance of probes, whose probe is under way, until
when that counts, and until when the service asked to wait.
"""

from __future__ import annotations

from types import MappingProxyType

from ..._core.shared_lanes import LaneNews

__all__ = ["CLAIM", "LEASE", "LOOK", "LOOKS", "LOOK_AND_RENEW", "PROBE_LEASE", "REPORTS"]

PROBE_LEASE = 5.0
"""Seconds after which a probe counts as lost; while it is under way it is renewed each second."""

_PAUSES = """
    l.lane, extract(epoch FROM l.since)::float8, extract(epoch FROM l.paused_until)::float8, l.distance,
    l.probe_by, extract(epoch FROM l.probe_until)::float8, extract(epoch FROM l.held_until)::float8
"""
_PAUSED = "ON l.run = %(run)s AND (l.since IS NOT NULL OR l.held_until > clock_timestamp())"

LEASE = f"""
WITH leased AS (
    INSERT INTO invoicing.lanes AS l (run, lane, per_second, free_at)
    VALUES (
        %(run)s, '*', %(per_second)s::float8,
        clock_timestamp() + make_interval(secs => %(permits)s::float8 / %(per_second)s::float8)
    )
    ON CONFLICT (run, lane) DO UPDATE SET
        per_second = coalesce(%(set)s::float8, l.per_second, %(per_second)s::float8),
        free_at = greatest(
            clock_timestamp(),
            least(l.free_at, clock_timestamp() + make_interval(secs => 60 + 1000 / %(per_second)s::float8))
        ) + make_interval(secs => %(permits)s::float8 / coalesce(%(set)s::float8, l.per_second, %(per_second)s::float8))
    RETURNING extract(epoch FROM free_at)::float8 AS free_at, per_second,
        set_config('synchronous_commit', 'off', true) AS forgettable
)
SELECT extract(epoch FROM clock_timestamp())::float8, leased.free_at, leased.per_second, {_PAUSES}
FROM leased LEFT JOIN invoicing.lanes AS l {_PAUSED}
"""  # noqa: S608 - of the constants above
"""Lease permits: the time behind all that is leased, and from now on at the earliest. A clock that was set back makes
nobody wait for its former time. What is leased need not survive the database, whose coming back takes longer."""

LOOK = f"""
SELECT extract(epoch FROM clock_timestamp())::float8, NULL::float8, NULL::float8, {_PAUSES}
FROM (SELECT 1) AS one LEFT JOIN invoicing.lanes AS l {_PAUSED}
"""  # noqa: S608 - of the constants above

LOOK_AND_RENEW = f"""
WITH renewed AS (
    UPDATE invoicing.lanes SET probe_until = clock_timestamp() + make_interval(secs => {PROBE_LEASE})
    WHERE run = %(run)s AND probe_by = %(worker)s AND lane = ANY(%(probes)s)
)
{LOOK}
"""  # noqa: S608 - of the constants above

LOOKS = frozenset({LEASE, LOOK, LOOK_AND_RENEW})
"""What returns rows of that shape."""

CLAIM = f"""
UPDATE invoicing.lanes
SET probe_by = %(worker)s, probe_until = clock_timestamp() + make_interval(secs => {PROBE_LEASE})
WHERE run = %(run)s AND lane = %(lane)s AND since IS NOT NULL
    AND paused_until <= clock_timestamp() + interval '50 ms'
    AND (probe_by IS NULL OR probe_by = %(worker)s OR probe_until <= clock_timestamp())
RETURNING lane
"""  # noqa: S608 - of the constants above

_PAUSE = """
INSERT INTO invoicing.lanes AS l (run, lane, since, paused_until, distance)
VALUES (
    %(run)s, %(lane)s, clock_timestamp() - make_interval(secs => %(since)s::float8),
    clock_timestamp() + make_interval(secs => %(until)s::float8), %(distance)s::float8
)
ON CONFLICT (run, lane) DO UPDATE SET
    since = excluded.since, paused_until = excluded.paused_until, distance = excluded.distance,
    probe_by = NULL, probe_until = NULL
WHERE l.since IS NULL
"""

_HOLD = """
INSERT INTO invoicing.lanes AS l (run, lane, held_until)
VALUES (%(run)s, %(lane)s, clock_timestamp() + make_interval(secs => %(until)s::float8))
ON CONFLICT (run, lane) DO UPDATE SET held_until = greatest(l.held_until, excluded.held_until)
"""

_MISS = """
UPDATE invoicing.lanes
SET paused_until = clock_timestamp() + make_interval(secs => %(until)s::float8), distance = %(distance)s::float8,
    probe_by = NULL, probe_until = NULL
WHERE run = %(run)s AND lane = %(lane)s AND probe_by = %(worker)s
"""

_RELEASE = """
UPDATE invoicing.lanes SET probe_by = NULL, probe_until = NULL
WHERE run = %(run)s AND lane = %(lane)s AND probe_by = %(worker)s
"""

_RESUME = """
UPDATE invoicing.lanes SET since = NULL, paused_until = NULL, distance = NULL, probe_by = NULL, probe_until = NULL
WHERE run = %(run)s AND lane = %(lane)s AND since <= clock_timestamp() - make_interval(secs => %(ago)s::float8)
"""

REPORTS = MappingProxyType(
    {
        LaneNews.PAUSED: _PAUSE,
        LaneNews.HELD: _HOLD,
        LaneNews.PROBED: _MISS,
        LaneNews.RELEASED: _RELEASE,
        LaneNews.RESUMED: _RESUME,
    }
)
"""What each report does, with how many seconds `ago` it was made and how many `since` and `until` are from now. A pause
that is known goes on as it is, and an answer ends none that began after it."""
