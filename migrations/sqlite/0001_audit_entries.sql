-- The trail: one row an entry, appended by the gateway's one writer and never touched again.
--
-- An intent is written before a change is forwarded, its outcome after; a denial is both in one. All
-- columns but `hash` are hashed in the order in which they stand here (src/audit/chain.rs), so columns
-- cannot be added, dropped or reordered: a chain cannot change its past.
-- Times are microseconds since 1970 in UTC, so that the database, the hash and comparisons see one integer.
CREATE TABLE audit_entries (
    version             INTEGER NOT NULL,  -- of the canonical encoding that `hash` is taken over
    chain_id            TEXT    NOT NULL,  -- which chain; an SQLite trail has one, `main`
    sequence            INTEGER PRIMARY KEY, -- place in the chain, from 1 without gaps
    kind                TEXT    NOT NULL CHECK (kind IN ('intent', 'outcome', 'denial')),
    event_id            TEXT    NOT NULL,  -- UUID of version 7; an intent and its outcome share it
    recorded_at         INTEGER NOT NULL,
    -- Who asked. An outcome repeats subject and request id, what filters and provenance need.
    subject             TEXT    NOT NULL,
    issuer              TEXT,
    token_id            TEXT,
    client_ip           TEXT,
    user_agent          TEXT,
    request_id          TEXT,
    trace_id            TEXT,
    -- For what. An outcome repeats these but for the reason.
    operation           TEXT    NOT NULL CHECK (operation IN ('share', 'unshare', 'update')),
    image_id            TEXT    NOT NULL,
    account_id          INTEGER,           -- null only where a bulk request was denied as a whole
    region              TEXT    NOT NULL,
    reason              TEXT,
    expires_at          INTEGER,           -- when the share ends by itself; null: it does not
    policy_ids          TEXT,              -- JSON array of the policies that decided; null on outcomes
    -- How it ended: on outcomes and denials.
    outcome             TEXT    CHECK (outcome IN ('succeeded', 'invalid_account', 'denied', 'failed', 'unknown')),
    http_status         INTEGER,           -- what the caller was told
    upstream_ret_code   INTEGER,
    upstream_request_id TEXT,
    upstream_calls      INTEGER,           -- calls that carried this change
    duration_ms         INTEGER,           -- from the request's arrival to this row
    detail              TEXT,
    hash                TEXT    NOT NULL,  -- SHA-256 over the hash before and this row, lower-case hex
    CHECK ((kind = 'intent') = (outcome IS NULL)),
    CHECK ((kind = 'denial') = (outcome IS 'denied'))
) STRICT;

-- Finds an event's rows, orders events by time, and holds each event to one row of each kind.
CREATE UNIQUE INDEX audit_entries_event ON audit_entries (event_id, kind);

-- One index a filter, over the first rows of events, in the order in which pages are read.
CREATE INDEX audit_entries_subject ON audit_entries (subject, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_image ON audit_entries (image_id, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_account ON audit_entries (account_id, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_request ON audit_entries (request_id, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_operation ON audit_entries (operation, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_outcome ON audit_entries (outcome, event_id) WHERE kind IN ('outcome', 'denial');

CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
BEGIN
    SELECT RAISE(ABORT, 'audit entries are never updated');
END;

CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
BEGIN
    SELECT RAISE(ABORT, 'audit entries are never deleted');
END;

-- INSERT OR REPLACE deletes the row it replaces without asking the trigger above.
CREATE TRIGGER audit_entries_no_replace BEFORE INSERT ON audit_entries
WHEN EXISTS (SELECT 1 FROM audit_entries WHERE sequence = NEW.sequence)
  OR EXISTS (SELECT 1 FROM audit_entries WHERE event_id = NEW.event_id AND kind = NEW.kind)
BEGIN
    SELECT RAISE(ABORT, 'audit entries are never replaced');
END;

-- The intents without an outcome, so that recovery and `outcome=pending` need not scan the trail.
-- Derived: it can be rebuilt from audit_entries, and verification never reads it.
CREATE TABLE audit_pending (
    event_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_entries_intent AFTER INSERT ON audit_entries WHEN NEW.kind = 'intent'
BEGIN
    INSERT INTO audit_pending (event_id) VALUES (NEW.event_id);
END;

CREATE TRIGGER audit_entries_outcome AFTER INSERT ON audit_entries WHEN NEW.kind = 'outcome'
BEGIN
    DELETE FROM audit_pending WHERE event_id = NEW.event_id;
END;

-- One row that a writer which could not commit updates until it can: only a real commit shows that the
-- disk takes writes again.
CREATE TABLE audit_writer (
    id        INTEGER PRIMARY KEY CHECK (id = 1),
    tried_at  INTEGER NOT NULL
) STRICT;
