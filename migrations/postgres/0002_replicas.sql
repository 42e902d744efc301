-- Several gateways on one trail.

ALTER TABLE audit_chains
    -- Names a chain in the feed's cursors, where its name would be long.
    ADD COLUMN number      BIGINT GENERATED ALWAYS AS IDENTITY UNIQUE,
    ADD COLUMN last_event  UUID,                       -- the greatest id in it
    -- Ids that are given in it from now on are greater: whoever reads events upwards may read up to here.
    ADD COLUMN floor_event UUID,
    -- In milliseconds: how long a call of its gateway may go on.
    ADD COLUMN call_ms     BIGINT NOT NULL DEFAULT 0;

-- Those that were imported.
UPDATE audit_chains SET last_event = (SELECT e.event_id FROM audit_entries AS e WHERE e.chain_id = audit_chains.chain_id
    AND e.kind IN ('intent', 'denial') ORDER BY e.event_id DESC LIMIT 1);

-- Chains that are written, of which there are few among many that have ended. By what does not change with each commit.
CREATE INDEX audit_chains_live ON audit_chains (chain_id) WHERE ended_at IS NULL;
CREATE INDEX audit_pending_chain ON audit_pending (chain_id);
-- Whether its chain took it over from another.
ALTER TABLE audit_pending ADD COLUMN adopted BOOLEAN NOT NULL DEFAULT FALSE;

-- Finds outcomes of which a call may still take effect (EARLIER_CALL_OPEN in src/audit/entry.rs), those of the last minutes.
CREATE INDEX audit_entries_open ON audit_entries (recorded_at)
    WHERE kind = 'outcome' AND (outcome = 'unknown'
        OR detail = 'a call before the last was not answered and may still take effect');

-- What was looked after, as in SQLite (migrations/sqlite/0004_looked_after.sql).
CREATE TABLE audit_looked_after (
    region     TEXT COLLATE "C" NOT NULL,
    image_id   TEXT COLLATE "C" NOT NULL,
    account_id BIGINT NOT NULL,
    through    UUID NOT NULL,  -- the last event that is covered by it
    PRIMARY KEY (region, image_id, account_id)
);

-- Of grants of locks, over all images: rows that nobody asks for any more are forgotten, and their numbers are not given again.
CREATE SEQUENCE lane_lock_numbers;

-- Who may change an image now: one chain's gateway. Those that wait for it are served in their order.
CREATE TABLE lane_locks (
    region       TEXT COLLATE "C" NOT NULL,
    image_id     TEXT COLLATE "C" NOT NULL,
    holder       TEXT COLLATE "C",                     -- NULL: nobody
    number       BIGINT NOT NULL DEFAULT nextval('lane_lock_numbers'), -- greater each time it is given to somebody
    waiting      TEXT[] COLLATE "C" NOT NULL DEFAULT '{}',
    last_event   UUID,                                 -- of those who had it before, the greatest id
    -- Nothing may be sent before: a call of who had it and did not let it go in order may go on until then.
    not_before   TIMESTAMPTZ,
    -- Until then calls of those who had it before may take effect late.
    unsure_until TIMESTAMPTZ,
    let_go_at    TIMESTAMPTZ,
    PRIMARY KEY (region, image_id)
);
CREATE INDEX lane_locks_holder ON lane_locks (holder);
CREATE INDEX lane_locks_free ON lane_locks (let_go_at) WHERE holder IS NULL;

-- The first of those that wait whose chain has not ended.
CREATE FUNCTION lane_locks_next(waiting text[]) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT w.chain_id FROM unnest(waiting) WITH ORDINALITY AS w (chain_id, place)
    JOIN audit_chains AS c ON c.chain_id = w.chain_id AND c.ended_at IS NULL
    ORDER BY w.place LIMIT 1
$$;

-- One row an event, as in SQLite; times in UTC.
CREATE VIEW audit_log AS
SELECT f.event_id AS id,
    audit_id_time(f.event_id) AT TIME ZONE 'UTC' AS occurred_at,
    CASE f.kind WHEN 'denial' THEN audit_id_time(f.event_id) ELSE to_timestamp(o.recorded_at / 1000000.0) END
        AT TIME ZONE 'UTC' AS completed_at,
    f.subject, f.issuer, f.token_id, f.client_ip, f.user_agent, f.request_id, f.trace_id,
    f.operation, f.image_id, f.account_id, f.region,
    COALESCE(o.outcome, f.outcome, 'pending') AS outcome,
    COALESCE(o.http_status, f.http_status) AS http_status,
    COALESCE(o.upstream_ret_code, f.upstream_ret_code) AS upstream_ret_code,
    COALESCE(o.upstream_request_id, f.upstream_request_id) AS upstream_request_id,
    COALESCE(o.upstream_calls, f.upstream_calls) AS upstream_calls,
    COALESCE(o.duration_ms, f.duration_ms) AS duration_ms,
    f.reason,
    to_timestamp(f.expires_at / 1000000.0) AT TIME ZONE 'UTC' AS expires_at,
    f.policy_ids,
    COALESCE(o.detail, f.detail) AS detail
FROM audit_entries AS f
LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'
WHERE f.kind IN ('intent', 'denial');

-- As before, but whether another gateway has made it just now is asked of the catalogue itself: what is remembered of it may be
-- older than the lock.
CREATE OR REPLACE FUNCTION audit_make_partition(id uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    month   timestamp := date_trunc('month', audit_id_time(id) AT TIME ZONE 'UTC');
    next    timestamptz := (month + interval '1 month') AT TIME ZONE 'UTC';
    place   text := 'audit_entries_' || to_char(month, 'YYYY_MM');
    -- Of the last month that has ids the end has none.
    bound   text := CASE WHEN extract(epoch FROM next) * 1000 < 281474976710656
        THEN quote_literal(audit_id_at(next)) ELSE 'MAXVALUE' END;
BEGIN
    IF to_regclass(quote_ident(place)) IS NOT NULL THEN
        RETURN place;
    END IF;
    -- One at a time, whoever makes it; attached, since that keeps nobody from writing to the others.
    PERFORM pg_advisory_xact_lock(hashtext('audit_make_partition'));
    PERFORM 1 FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'audit_entries'::regclass AND c.relname = place;
    IF FOUND THEN
        RETURN place;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE audit_entries INCLUDING ALL)', place);
    EXECUTE format('CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON %I '
        'FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse()', place);
    EXECUTE format('ALTER TABLE audit_entries ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%s)', place,
        audit_id_at(month AT TIME ZONE 'UTC'), bound);
    RETURN place;
END
$$;
