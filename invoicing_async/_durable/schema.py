"""The tables of a run file and its longer statements.

Statements are no file of their own: most are one line, beside the values they bind, and many are completed there by a
number of rows or a list of columns, so that such a file would hold half of each.
"""

from __future__ import annotations

from .states import Event

__all__ = [
    "APPLICATION_ID",
    "BARE",
    "BY_STATE",
    "CHANGED",
    "COUNT",
    "DELETE_LATER",
    "ITEMS",
    "LATE",
    "MOVE",
    "MOVED",
    "MOVED_VERSION",
    "MOVES",
    "NOTE",
    "OTHERS",
    "PAUSES",
    "RECORD",
    "SCHEMA",
    "SOME",
    "UNIQUE",
    "VERSION",
    "WITH_PAYLOAD",
]

APPLICATION_ID = 0x496E7641
"""What a run file carries in its header, so that another program's database is never taken for one: "InvA"."""


VERSION = 1
"""The version of the file format; a file of another one is refused."""


MOVED_VERSION = 2
"""The version of a file whose run was carried over elsewhere: programs that know nothing of that refuse it."""


ITEMS = """
CREATE TABLE {name} (
    seq INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    request_id TEXT,
    invoice_id TEXT,
    path TEXT,
    size INTEGER,
    sha256 TEXT,
    code TEXT,
    error TEXT,
    result TEXT,
    payload_sha256 TEXT,
    sent_at REAL,
    updated REAL NOT NULL
);
"""


SCHEMA = f"""
BEGIN;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
{ITEMS.format(name="items")}
{ITEMS.format(name="staged")}
CREATE TABLE drafts (seq INTEGER PRIMARY KEY, payload TEXT NOT NULL);
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    item INTEGER NOT NULL,
    event TEXT NOT NULL,
    at REAL NOT NULL,
    detail TEXT
);
CREATE TRIGGER journal_kept BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER journal_fixed BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TABLE tally (state TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE duplicates (key TEXT PRIMARY KEY, times INTEGER NOT NULL) WITHOUT ROWID;
"""


PAUSES = """
CREATE TABLE IF NOT EXISTS pauses (
    operation TEXT NOT NULL,
    begun REAL NOT NULL,
    until REAL NOT NULL,
    is_over INTEGER NOT NULL,
    PRIMARY KEY (operation, begun)
) WITHOUT ROWID
"""
"""When the calls of a run waited because the service was down. A file of before gets it when it is next opened for
writing; versions that do not know it leave it alone."""


OTHERS = """
CREATE {temporary} TABLE IF NOT EXISTS other_requests (item INTEGER PRIMARY KEY, request_id TEXT NOT NULL)
"""
"""The requests beside its own that the service accepted of an item. A file of before gets it when it is next opened for
writing, and whoever only reads such a file has one of its own; versions that do not know it leave it alone."""


UNIQUE = "CREATE UNIQUE INDEX items_key ON items (key)"


BY_STATE = "CREATE INDEX items_state ON items (state, seq)"


_COLUMNS = (
    "i.seq, i.key, i.state, i.attempt, i.request_id, i.invoice_id, i.path, i.size, i.sha256, "
    "i.code, i.error, i.result, i.payload_sha256, i.sent_at, i.updated"
)


_OTHER = "(SELECT o.request_id FROM other_requests AS o WHERE o.item = i.seq)"


BARE = f"SELECT {_COLUMNS}, NULL, {_OTHER} FROM items AS i"  # noqa: S608 - made of constants


WITH_PAYLOAD = f"SELECT {_COLUMNS}, d.payload, {_OTHER} FROM items AS i LEFT JOIN drafts AS d ON d.seq = i.seq"  # noqa: S608 - made of constants


RECORD = (
    "UPDATE items SET state = ?, attempt = ?, request_id = ?, path = ?, size = ?, sha256 = ?, code = ?, error = ?, "
    "updated = ? WHERE seq = ?"
)


LATE = "late"
"""The row of `meta` that says how long after its intent a submission may arrive."""


MOVED = "moved"
"""The row of `meta` that says where the run was carried over to."""


CHANGED = "an item does not stand where this process left it"


SOME = "SELECT seq FROM items WHERE state = ? ORDER BY seq LIMIT 10000"


MOVES = """
CREATE TEMP VIEW moves AS SELECT
    0 AS seq, '' AS state, 0 AS attempt, 0.0 AS at, '' AS before, '' AS code, '' AS error,
    '' AS request_id, '' AS invoice_id,
    '' AS result, '' AS path, 0 AS size, '' AS sha256, '' AS event, '' AS detail
"""


MOVE = f"""
CREATE TEMP TRIGGER move INSTEAD OF INSERT ON moves WHEN NEW.seq > 0 BEGIN
    UPDATE items SET
        state = NEW.state, attempt = NEW.attempt, updated = NEW.at, code = NEW.code, error = NEW.error,
        sent_at = CASE NEW.event WHEN '{Event.INTENT.value}' THEN NEW.at ELSE sent_at END,
        request_id = coalesce(NEW.request_id, request_id), invoice_id = coalesce(NEW.invoice_id, invoice_id),
        result = coalesce(NEW.result, result), path = coalesce(NEW.path, path), size = coalesce(NEW.size, size),
        sha256 = coalesce(NEW.sha256, sha256)
    WHERE seq = NEW.seq AND state = NEW.before AND attempt = NEW.attempt - (NEW.event = '{Event.INTENT.value}');
    SELECT RAISE(ABORT, '{CHANGED}') WHERE changes() <> 1;
    INSERT INTO journal (item, event, at, detail) VALUES (NEW.seq, NEW.event, NEW.at, NEW.detail);
END
"""  # noqa: S608 - made of constants


NOTE = """
CREATE TEMP TRIGGER noted INSTEAD OF INSERT ON moves WHEN NEW.seq < 0 BEGIN
    UPDATE items SET updated = NEW.at WHERE seq = -NEW.seq;
    INSERT OR REPLACE INTO other_requests VALUES (-NEW.seq, NEW.request_id);
    INSERT INTO journal (item, event, at, detail) VALUES (-NEW.seq, NEW.event, NEW.at, NEW.detail);
END
"""


COUNT = """
CREATE TEMP TRIGGER counted INSTEAD OF INSERT ON moves WHEN NEW.seq = 0 BEGIN
    UPDATE tally SET count = count + NEW.attempt WHERE state = NEW.state;
END
"""
"""What transitions write, as a view of the connection's own that is inserted into: nothing of it is in the file. A row
for item 0 is a change of the counts, one for a negative number a request beside the one of that item."""


DELETE_LATER = (
    "DELETE FROM items WHERE seq IN (SELECT seq FROM "
    "(SELECT seq, row_number() OVER (PARTITION BY key ORDER BY seq) AS place FROM items) WHERE place > 1)"
)
