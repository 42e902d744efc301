-- The trail in PostgreSQL, 14 or later: one row an entry, appended and never touched again.
--
-- The columns are those of SQLite (migrations/sqlite/0001_audit_entries.sql says what each is), in their order, for the hash
-- covers them in it (src/audit/chain.rs). Times are microseconds since 1970 in UTC. Text is compared byte by byte, so that
-- no locale has a say in what is equal, and in which order.
CREATE TABLE audit_entries (
    version             BIGINT NOT NULL,
    chain_id            TEXT   COLLATE "C" NOT NULL CHECK (chain_id ~ '^[A-Za-z0-9-]{1,64}$'),
    sequence            BIGINT NOT NULL,
    kind                TEXT   COLLATE "C" NOT NULL CHECK (kind IN ('intent', 'outcome', 'denial')),
    event_id            UUID   NOT NULL,
    recorded_at         BIGINT NOT NULL,
    subject             TEXT   COLLATE "C" NOT NULL,
    issuer              TEXT   COLLATE "C",
    token_id            TEXT   COLLATE "C",
    client_ip           TEXT   COLLATE "C",
    user_agent          TEXT   COLLATE "C",
    request_id          TEXT   COLLATE "C",
    trace_id            TEXT   COLLATE "C",
    operation           TEXT   COLLATE "C" NOT NULL CHECK (operation IN ('share', 'unshare', 'update')),
    image_id            TEXT   COLLATE "C" NOT NULL,
    account_id          BIGINT,
    region              TEXT   COLLATE "C" NOT NULL,
    reason              TEXT   COLLATE "C",
    expires_at          BIGINT,
    policy_ids          TEXT   COLLATE "C",
    outcome             TEXT   COLLATE "C"
                        CHECK (outcome IN ('succeeded', 'invalid_account', 'denied', 'failed', 'unknown')),
    http_status         BIGINT,
    upstream_ret_code   BIGINT,
    upstream_request_id TEXT   COLLATE "C",
    upstream_calls      BIGINT,
    duration_ms         BIGINT,
    detail              TEXT   COLLATE "C",
    hash                TEXT   COLLATE "C" NOT NULL,
    -- Holds each event to one row of each kind, over all chains.
    PRIMARY KEY (event_id, kind),
    CHECK ((kind = 'intent') = (outcome IS NULL)),
    CHECK ((kind = 'denial') = (outcome IS NOT DISTINCT FROM 'denied'))
) PARTITION BY RANGE (event_id);

-- Along a chain.
CREATE INDEX audit_entries_chain ON audit_entries (chain_id, sequence);

-- One index a filter, over the first rows of events, in the order in which pages are read.
CREATE INDEX audit_entries_first ON audit_entries (event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_subject ON audit_entries (subject, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_image_id ON audit_entries (image_id, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_account_id ON audit_entries (account_id, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_request_id ON audit_entries (request_id, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_operation ON audit_entries (operation, event_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_outcome ON audit_entries (outcome, event_id) WHERE kind IN ('outcome', 'denial');
-- Finds the last event that says how an account came to have an image, or no longer to have it.
CREATE INDEX audit_entries_standing ON audit_entries (image_id, account_id, region, event_id)
    WHERE kind = 'outcome' AND outcome IN ('succeeded', 'unknown');

CREATE FUNCTION audit_entries_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are never %', CASE TG_OP
        WHEN 'UPDATE' THEN 'updated' WHEN 'DELETE' THEN 'deleted' ELSE 'truncated' END
        USING ERRCODE = 'restrict_violation';
END
$$;
-- Triggers for each row are those of every partition, also of later ones; those for TRUNCATE are each table's own.
CREATE TRIGGER audit_entries_no_change BEFORE UPDATE OR DELETE ON audit_entries
    FOR EACH ROW EXECUTE FUNCTION audit_entries_refuse();
CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries
    FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_refuse();

-- The lowest id of version 7 at a time: its first 48 bits are milliseconds since 1970 (RFC 9562, section 5.7).
CREATE FUNCTION audit_id_at(at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT rpad(lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0'), 32, '0')::uuid
$$;

-- The time in an id.
CREATE FUNCTION audit_id_time(id uuid) RETURNS timestamptz LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

-- Makes the partition of the month (UTC) that an id lies in, where there is none; gives its name.
CREATE FUNCTION audit_make_partition(id uuid) RETURNS text LANGUAGE plpgsql AS $$
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
    IF to_regclass(quote_ident(place)) IS NOT NULL THEN
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

-- The chains, and where each ends: what is committed moves it, so that verification notices where a tail was cut off. It only
-- goes on.
CREATE TABLE audit_chains (
    chain_id      TEXT COLLATE "C" PRIMARY KEY CHECK (chain_id ~ '^[A-Za-z0-9-]{1,64}$'),
    head_sequence BIGINT NOT NULL DEFAULT 0,
    head_hash     TEXT COLLATE "C" NOT NULL DEFAULT repeat('0', 64),
    begun_at      TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    heartbeat_at  TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    ended_at      TIMESTAMPTZ          -- nobody appends to it any more
);

CREATE FUNCTION audit_chains_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'UPDATE' OR NEW.chain_id <> OLD.chain_id OR NEW.head_sequence < OLD.head_sequence
        OR (NEW.head_sequence = OLD.head_sequence AND NEW.head_hash <> OLD.head_hash) THEN
        RAISE EXCEPTION 'a chain is never taken away, and its head only goes on' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER audit_chains_only_go_on BEFORE UPDATE OR DELETE ON audit_chains
    FOR EACH ROW EXECUTE FUNCTION audit_chains_refuse();
CREATE TRIGGER audit_chains_no_truncate BEFORE TRUNCATE ON audit_chains
    FOR EACH STATEMENT EXECUTE FUNCTION audit_chains_refuse();

-- The intents without an outcome, so that nobody scans for them. Derived: verification never reads it.
CREATE TABLE audit_pending (
    event_id UUID PRIMARY KEY,
    chain_id TEXT COLLATE "C" NOT NULL
);
