-- What was looked after: accounts of an image of which a change could take effect late, once the time for that was
-- over. Written by the gateway's one writer beside the trail, read at a start, so that nothing is looked after twice:
-- what somebody did by other means since then stands. Neither hashed nor verified; rows are updated and deleted.
CREATE TABLE audit_looked_after (
    region     TEXT    NOT NULL,
    image_id   TEXT    NOT NULL,
    account_id INTEGER NOT NULL,
    through    TEXT    NOT NULL,  -- the last event that is covered by it
    PRIMARY KEY (region, image_id, account_id)
) STRICT, WITHOUT ROWID;

-- Finds outcomes of which a call may still take effect: a start asks for recent ones. The text is that of rows that succeeded
-- although a call before their last was not answered (EARLIER_CALL_OPEN in src/audit/entry.rs).
CREATE INDEX audit_entries_open ON audit_entries (kind, recorded_at)
    WHERE kind = 'outcome' AND (outcome = 'unknown'
        OR detail = 'a call before the last was not answered and may still take effect');

-- Rows up to here were written by versions that noted nothing.
CREATE TABLE audit_looked_after_from (
    sequence INTEGER NOT NULL
) STRICT;
INSERT INTO audit_looked_after_from SELECT COALESCE(MAX(sequence), 0) FROM audit_entries;
