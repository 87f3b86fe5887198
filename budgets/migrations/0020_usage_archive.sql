CREATE TRIGGER usage_archive_append_only BEFORE UPDATE OR DELETE ON budgets_usagearchive
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();

-- A day that is archived gets no partition again: a late event of it would be all that it seems to
-- have had. What others have made meanwhile is looked up in the catalogue itself: the cache behind
-- to_regclass may still say, after the lock, that it is not there.
CREATE OR REPLACE FUNCTION budgets_usage_partition(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    part text := 'budgets_usageevent_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('budgets_usage_partition', 0));
    IF EXISTS (
        SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'budgets_usageevent'::regclass AND c.relname = part
    ) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM budgets_usagearchive a WHERE a.day = budgets_usage_partition.day) THEN
        RAISE EXCEPTION 'usage events of % are archived', day
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'usage_day_archived';
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE budgets_usageevent INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', part);
    EXECUTE format(
        'ALTER TABLE budgets_usageevent ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        part, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
    );
    RETURN true;
END $$;
