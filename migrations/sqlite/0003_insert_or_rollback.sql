-- A row that is refused takes its whole transaction back, as the gateway's own INSERT asks for. A trigger that
-- may abort one statement alone makes SQLite keep a copy of each page that the statement changes, for every
-- change that the gateway makes.
DROP TRIGGER audit_entries_no_replace;
CREATE TRIGGER audit_entries_no_replace BEFORE INSERT ON audit_entries
WHEN EXISTS (SELECT 1 FROM audit_entries WHERE sequence = NEW.sequence)
  OR EXISTS (SELECT 1 FROM audit_entries WHERE event_id = NEW.event_id AND kind = NEW.kind)
BEGIN
    SELECT RAISE(ROLLBACK, 'audit entries are never replaced');
END;
