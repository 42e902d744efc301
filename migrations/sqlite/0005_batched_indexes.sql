-- What pages are filtered by, kept in batches: a change is written before it is forwarded, so whoever asks for one
-- waits for each index that its two rows go into, and for each page of each index that goes through the log. A
-- batch touches a page once for many rows.
--
-- The three tables here are derived: they hold what the rows up to the one that `audit_indexed` names say. To name a
-- later one adds the rows up to there, which the gateway's writer does at some hundred rows, when everybody has their
-- answer. Readers look through the rows behind it one by one. Verification never reads them, and they can be made again:
--     BEGIN IMMEDIATE; DELETE FROM audit_filters; DELETE FROM audit_standing; DELETE FROM audit_pending;
--     UPDATE audit_indexed SET sequence = 0;
--     UPDATE audit_indexed SET sequence = (SELECT MAX(sequence) FROM audit_entries); COMMIT;

DROP INDEX audit_entries_subject;
DROP INDEX audit_entries_image;
DROP INDEX audit_entries_account;
DROP INDEX audit_entries_request;
DROP INDEX audit_entries_operation;
DROP INDEX audit_entries_standing;
DROP TRIGGER audit_entries_intent;
DROP TRIGGER audit_entries_outcome;
DROP TABLE audit_pending;

CREATE TABLE audit_indexed (
    id       INTEGER PRIMARY KEY CHECK (id = 1),
    sequence INTEGER NOT NULL
) STRICT;
INSERT INTO audit_indexed (id, sequence) VALUES (1, 0);

-- The first rows of events. They stand in the order of their events, so an index by one column, with the sequence that
-- SQLite keeps behind it, gives pages in the order asked.
CREATE TABLE audit_filters (
    sequence   INTEGER PRIMARY KEY,
    subject    TEXT NOT NULL,
    image_id   TEXT NOT NULL,
    account_id INTEGER,
    request_id TEXT,
    operation  TEXT NOT NULL
) STRICT;

-- The outcomes that say how an account came to have an image, or no longer to have it. They do not stand in the order
-- of their events, so here the id is needed.
CREATE TABLE audit_standing (
    image_id   TEXT    NOT NULL,
    account_id INTEGER NOT NULL,
    region     TEXT    NOT NULL,
    event_id   TEXT    NOT NULL,
    sequence   INTEGER NOT NULL,
    outcome    TEXT    NOT NULL,
    PRIMARY KEY (image_id, account_id, region, event_id)
) STRICT, WITHOUT ROWID;

-- The intents that had no outcome when the last batch was added; some have one by now.
CREATE TABLE audit_pending (
    sequence INTEGER PRIMARY KEY
) STRICT;

-- What stands there already is left: nobody's rows in a derived table may keep the trail from being written.
CREATE TRIGGER audit_indexed_batch AFTER UPDATE ON audit_indexed WHEN NEW.sequence > OLD.sequence
BEGIN
    INSERT INTO audit_filters
        SELECT sequence, subject, image_id, account_id, request_id, operation
        FROM audit_entries
        WHERE sequence > OLD.sequence AND sequence <= NEW.sequence AND kind IN ('intent', 'denial')
        ORDER BY sequence
        ON CONFLICT DO NOTHING;
    INSERT INTO audit_standing
        SELECT image_id, account_id, region, event_id, sequence, outcome
        FROM audit_entries
        WHERE sequence > OLD.sequence AND sequence <= NEW.sequence
          AND kind = 'outcome' AND outcome IN ('succeeded', 'unknown') AND account_id IS NOT NULL
        ORDER BY image_id, account_id, region, event_id
        ON CONFLICT DO NOTHING;
    DELETE FROM audit_pending WHERE EXISTS (
        SELECT 1 FROM audit_entries AS f JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome'
        WHERE f.sequence = audit_pending.sequence);
    INSERT INTO audit_pending
        SELECT f.sequence FROM audit_entries AS f
        WHERE f.sequence > OLD.sequence AND f.sequence <= NEW.sequence AND f.kind = 'intent'
          AND NOT EXISTS (SELECT 1 FROM audit_entries AS o WHERE o.event_id = f.event_id AND o.kind = 'outcome')
        ON CONFLICT DO NOTHING;
END;

-- An older trail's rows, before there are indexes: sorting one in one go is fast.
UPDATE audit_indexed SET sequence = (SELECT MAX(sequence) FROM audit_entries)
    WHERE EXISTS (SELECT 1 FROM audit_entries);
CREATE INDEX audit_filters_subject ON audit_filters (subject);
CREATE INDEX audit_filters_image_id ON audit_filters (image_id);
CREATE INDEX audit_filters_account_id ON audit_filters (account_id);
CREATE INDEX audit_filters_request_id ON audit_filters (request_id);
CREATE INDEX audit_filters_operation ON audit_filters (operation);

-- One row an event, for people, as before; what it is filtered by comes from the table that has indexes for it.
DROP VIEW audit_log;
CREATE VIEW audit_log AS
WITH first AS (
    SELECT f.sequence, f.kind, f.event_id, f.recorded_at, i.subject, f.issuer, f.token_id, f.client_ip,
        f.user_agent, i.request_id, f.trace_id, i.operation, i.image_id, i.account_id, f.region, f.reason,
        f.expires_at, f.policy_ids, f.outcome, f.http_status, f.upstream_ret_code, f.upstream_request_id,
        f.upstream_calls, f.duration_ms, f.detail
    FROM audit_entries AS f JOIN audit_filters AS i ON i.sequence = f.sequence
        -- What a row says is what its entry says.
        AND i.subject = f.subject AND i.image_id = f.image_id AND i.account_id IS f.account_id
        AND i.request_id IS f.request_id AND i.operation = f.operation
    WHERE f.kind IN ('intent', 'denial') AND +f.sequence <= (SELECT sequence FROM audit_indexed)
    UNION ALL
    SELECT sequence, kind, event_id, recorded_at, subject, issuer, token_id, client_ip, user_agent, request_id,
        trace_id, operation, image_id, account_id, region, reason, expires_at, policy_ids, outcome, http_status,
        upstream_ret_code, upstream_request_id, upstream_calls, duration_ms, detail
    FROM audit_entries NOT INDEXED
    WHERE kind IN ('intent', 'denial') AND sequence > (SELECT sequence FROM audit_indexed)
), timed AS (
    -- The time in an id: its first 12 hexadecimal digits are milliseconds since 1970 (RFC 9562, section 5.7).
    SELECT *,
         (instr('123456789abcdef', substr(event_id, 1, 1)) << 44) + (instr('123456789abcdef', substr(event_id, 2, 1)) << 40)
         + (instr('123456789abcdef', substr(event_id, 3, 1)) << 36) + (instr('123456789abcdef', substr(event_id, 4, 1)) << 32)
         + (instr('123456789abcdef', substr(event_id, 5, 1)) << 28) + (instr('123456789abcdef', substr(event_id, 6, 1)) << 24)
         + (instr('123456789abcdef', substr(event_id, 7, 1)) << 20) + (instr('123456789abcdef', substr(event_id, 8, 1)) << 16)
         + (instr('123456789abcdef', substr(event_id, 10, 1)) << 12) + (instr('123456789abcdef', substr(event_id, 11, 1)) << 8)
         + (instr('123456789abcdef', substr(event_id, 12, 1)) << 4) + (instr('123456789abcdef', substr(event_id, 13, 1)) << 0) AS id_millis
    FROM first
)
SELECT
    f.event_id AS id,                     -- UUID of version 7
    strftime('%Y-%m-%dT%H:%M:%S', f.id_millis / 1000, 'unixepoch') || printf('.%03d000Z', f.id_millis % 1000)
        AS occurred_at,                   -- the time in the id
    CASE f.kind
        WHEN 'denial' THEN
            strftime('%Y-%m-%dT%H:%M:%S', f.id_millis / 1000, 'unixepoch') || printf('.%03d000Z', f.id_millis % 1000)
        ELSE
            strftime('%Y-%m-%dT%H:%M:%S', o.recorded_at / 1000000, 'unixepoch')
            || printf('.%06dZ', o.recorded_at % 1000000)
    END AS completed_at,                  -- when the outcome was written; null while pending
    f.subject,                            -- who asked: the token's sub, or system:...
    f.issuer,                             -- the token's iss
    f.token_id,                           -- the token's jti
    f.client_ip,                          -- where the request came from
    f.user_agent,                         -- what the client called itself
    f.request_id,                         -- the request's id
    f.trace_id,                           -- the caller's trace
    f.operation,                          -- share, unshare, or update where a bulk request was denied as a whole
    f.image_id,
    f.account_id,                         -- null where a bulk request was denied as a whole
    f.region,
    COALESCE(o.outcome, f.outcome, 'pending') AS outcome,
                                          -- pending, succeeded, invalid_account, denied, failed or unknown
    COALESCE(o.http_status, f.http_status) AS http_status,                          -- what the caller was told
    COALESCE(o.upstream_ret_code, f.upstream_ret_code) AS upstream_ret_code,        -- the upstream's last RetCode
    COALESCE(o.upstream_request_id, f.upstream_request_id) AS upstream_request_id,  -- its name for its last answer
    COALESCE(o.upstream_calls, f.upstream_calls) AS upstream_calls,                 -- calls that carried the change
    COALESCE(o.duration_ms, f.duration_ms) AS duration_ms,                          -- from arrival to the outcome
    f.reason,                             -- why, in the caller's words
    strftime('%Y-%m-%dT%H:%M:%S', f.expires_at / 1000000, 'unixepoch')
        || printf('.%06dZ', f.expires_at % 1000000) AS expires_at,                  -- null: it does not end by itself
    f.policy_ids,                         -- JSON array of the policies that decided
    COALESCE(o.detail, f.detail) AS detail                                          -- what else an auditor should know
FROM timed AS f
LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome';
