-- What pages, exports, lists and people read the trail by. Rows stay as they are: only indexes and a view.

-- First rows stand in the order of their events: ids are given in chain order and only grow. So an index by
-- filter alone, with the row's sequence that SQLite keeps behind it, gives pages in the order asked, at half
-- the size of one that repeats the id. Each index is paid for at every change.
DROP INDEX audit_entries_subject;
DROP INDEX audit_entries_image;
DROP INDEX audit_entries_account;
DROP INDEX audit_entries_request;
DROP INDEX audit_entries_operation;
CREATE INDEX audit_entries_subject ON audit_entries (subject) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_image ON audit_entries (image_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_account ON audit_entries (account_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_request ON audit_entries (request_id) WHERE kind IN ('intent', 'denial');
CREATE INDEX audit_entries_operation ON audit_entries (operation) WHERE kind IN ('intent', 'denial');

-- Finds the last event that says how an account came to have an image, or no longer to have it. Outcomes do
-- not stand in the order of their events, so here the id is needed.
CREATE INDEX audit_entries_standing ON audit_entries (image_id, account_id, region, event_id)
    WHERE kind = 'outcome' AND outcome IN ('succeeded', 'unknown');

-- One row an event, for people: the columns of an event as the API shows it, in its order. Times are text
-- (RFC 3339 in UTC), so they sort and compare as text.
CREATE VIEW audit_log AS
WITH first AS (
    -- The time in an id: its first 12 hexadecimal digits are milliseconds since 1970 (RFC 9562, section 5.7).
    SELECT *,
         (instr('123456789abcdef', substr(event_id, 1, 1)) << 44) + (instr('123456789abcdef', substr(event_id, 2, 1)) << 40)
         + (instr('123456789abcdef', substr(event_id, 3, 1)) << 36) + (instr('123456789abcdef', substr(event_id, 4, 1)) << 32)
         + (instr('123456789abcdef', substr(event_id, 5, 1)) << 28) + (instr('123456789abcdef', substr(event_id, 6, 1)) << 24)
         + (instr('123456789abcdef', substr(event_id, 7, 1)) << 20) + (instr('123456789abcdef', substr(event_id, 8, 1)) << 16)
         + (instr('123456789abcdef', substr(event_id, 10, 1)) << 12) + (instr('123456789abcdef', substr(event_id, 11, 1)) << 8)
         + (instr('123456789abcdef', substr(event_id, 12, 1)) << 4) + (instr('123456789abcdef', substr(event_id, 13, 1)) << 0) AS id_millis
    FROM audit_entries
    WHERE kind IN ('intent', 'denial')
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
FROM first AS f
LEFT JOIN audit_entries AS o ON o.event_id = f.event_id AND o.kind = 'outcome';
