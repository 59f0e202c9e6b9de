-- The first schema. Migrations go forward only, each in one transaction under an advisory lock, and are additive within
-- a major version, so that workers of before and of after run side by side. Times are the database's own.
CREATE SCHEMA invoicing;

-- One row: the version of the schema, and the least version of a program that may read it and that may write it.
CREATE TABLE invoicing.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version integer NOT NULL,
    min_reader integer NOT NULL,
    min_writer integer NOT NULL
);

CREATE TABLE invoicing.runs (
    run integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    kind text NOT NULL,
    settings text NOT NULL,
    created timestamptz NOT NULL,
    late double precision NOT NULL DEFAULT 0,
    last_seq bigint NOT NULL DEFAULT 0,
    last_command bigint NOT NULL DEFAULT 0,
    halted timestamptz,
    halted_why text,
    paused timestamptz
);

-- Whoever has a run open to work on it. `groups` counts the groups of changes that it has committed: by it a commit
-- whose answer was lost is known, and a database that came back older than what it had answered for. It is in the key,
-- since a group finds the row by both: while somebody keeps a transaction open every version of the row stays, and by
-- the number of the worker alone each group would have to read all of them.
CREATE TABLE invoicing.workers (
    worker integer GENERATED ALWAYS AS IDENTITY,
    run integer NOT NULL REFERENCES invoicing.runs,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started timestamptz NOT NULL,
    heartbeat timestamptz NOT NULL,
    ended timestamptz,
    groups bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    slots integer NOT NULL DEFAULT 0,
    doing text,
    PRIMARY KEY (worker, groups)
) WITH (fillfactor = 50);
CREATE INDEX workers_of_run ON invoicing.workers (run, heartbeat) WHERE ended IS NULL;

CREATE TABLE invoicing.items (
    run integer NOT NULL,
    seq bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    attempt integer NOT NULL DEFAULT 0,
    owner integer,
    request_id text COLLATE "C",
    other_request_id text COLLATE "C",
    invoice_id text COLLATE "C",
    path text,
    size bigint,
    sha256 text COLLATE "C",
    code text,
    error text,
    result text,
    payload_sha256 text COLLATE "C",
    sent_at timestamptz,
    updated timestamptz NOT NULL,
    PRIMARY KEY (run, seq),
    UNIQUE (run, key)
) WITH (fillfactor = 70);
-- Everything but what is at rest for good, which is most of a run: the primary key leads through that.
CREATE INDEX items_open ON invoicing.items (run, state, seq) WHERE state NOT IN ('success', 'saved', 'skipped');
CREATE INDEX items_sending ON invoicing.items (run, sent_at) WHERE state = 'sending';
CREATE INDEX items_without_file ON invoicing.items (run, seq) WHERE state = 'success' AND path IS NULL;
-- Of e-invoices alone, which have a digest of their draft: one request makes one of them.
CREATE UNIQUE INDEX items_request ON invoicing.items (run, lower(request_id))
    WHERE request_id IS NOT NULL AND payload_sha256 IS NOT NULL;
CREATE INDEX items_twice ON invoicing.items (run, seq) WHERE other_request_id IS NOT NULL;

CREATE TABLE invoicing.drafts (
    run integer NOT NULL,
    seq bigint NOT NULL,
    payload text NOT NULL,
    PRIMARY KEY (run, seq)
);

-- Append-only. `worker` and `grp` say by whose group an entry came, NULL for what no worker's group wrote.
CREATE TABLE invoicing.journal (
    run integer NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    item bigint NOT NULL,
    event text COLLATE "C" NOT NULL,
    attempt integer NOT NULL,
    at timestamptz NOT NULL,
    worker integer,
    grp bigint,
    detail text,
    PRIMARY KEY (run, id)
);
CREATE INDEX journal_of_item ON invoicing.journal (run, item, id);
CREATE FUNCTION invoicing.refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$;
CREATE TRIGGER journal_kept BEFORE UPDATE OR DELETE ON invoicing.journal
    FOR EACH ROW EXECUTE FUNCTION invoicing.refuse_change();
CREATE TRIGGER journal_whole BEFORE TRUNCATE ON invoicing.journal
    FOR EACH STATEMENT EXECUTE FUNCTION invoicing.refuse_change();

-- One row a worker and state: with one row a state every commit would wait for every other. Worker 0 is who takes in.
-- Each 512 groups of a worker have rows of their own, `part`: of a row that is never left, more and more versions would
-- have to be read, as long as somebody keeps a transaction open.
CREATE TABLE invoicing.tally (
    run integer NOT NULL,
    state text COLLATE "C" NOT NULL,
    worker integer NOT NULL,
    part bigint NOT NULL DEFAULT 0,
    count bigint NOT NULL,
    PRIMARY KEY (run, state, worker, part)
) WITH (fillfactor = 50);

-- What all who work on a run share. The lane `*` is its rate: whoever leases permits moves `free_at` on by their time.
-- Any other is a kind of call: paused where `since` is set, and then asked again by one at a time, `probe_by`, from
-- `paused_until` on; `distance` is the seconds between two probes. `held_until` is what the service asked to wait.
CREATE TABLE invoicing.lanes (
    run integer NOT NULL,
    lane text COLLATE "C" NOT NULL,
    per_second double precision,
    free_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    since timestamptz,
    paused_until timestamptz,
    distance double precision,
    held_until timestamptz,
    probe_by integer,
    probe_until timestamptz,
    PRIMARY KEY (run, lane)
) WITH (fillfactor = 50);

CREATE TABLE invoicing.duplicates (
    run integer NOT NULL,
    command bigint NOT NULL,
    key text COLLATE "C" NOT NULL,
    times bigint NOT NULL,
    PRIMARY KEY (run, command, key)
);

CREATE TABLE invoicing.pauses (
    run integer NOT NULL,
    operation text COLLATE "C" NOT NULL,
    begun timestamptz NOT NULL,
    until timestamptz NOT NULL,
    is_over boolean NOT NULL,
    PRIMARY KEY (run, operation, begun)
);

INSERT INTO invoicing.meta (version, min_reader, min_writer) VALUES (1, 1, 1);
