-- Usage events in one partition for each UTC day. There is no default partition: a row without a
-- day of its own is refused, never collected silently.
ALTER TABLE budgets_usageevent RENAME TO budgets_usageevent_whole;
ALTER TABLE budgets_usageevent_whole RENAME CONSTRAINT budgets_usageevent_pkey TO budgets_usageevent_whole_pkey;
DROP INDEX usage_by_time, usage_by_agent, usage_by_session, usage_by_receipt;

CREATE TABLE budgets_usageevent (
    LIKE budgets_usageevent_whole INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (id, started_at)
) PARTITION BY RANGE (started_at);
CREATE INDEX usage_by_time ON budgets_usageevent (organization_id, started_at DESC);
CREATE INDEX usage_by_agent ON budgets_usageevent (organization_id, agent_id, started_at DESC);
CREATE INDEX usage_by_session ON budgets_usageevent (organization_id, session) WHERE session <> '';
CREATE INDEX usage_by_receipt ON budgets_usageevent (received_at);
CREATE TRIGGER usage_event_append_only BEFORE UPDATE OR DELETE ON budgets_usageevent
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();

-- ATTACH, unlike PARTITION OF, does not wait for those who read or insert meanwhile.
CREATE FUNCTION budgets_usage_partition(day date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    part text := 'budgets_usageevent_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass(part) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended('budgets_usage_partition', 0));
    IF to_regclass(part) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE budgets_usageevent INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', part);
    EXECUTE format(
        'ALTER TABLE budgets_usageevent ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        part, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC'
    );
    RETURN true;
END $$;

SELECT budgets_usage_partition(day)
FROM (SELECT DISTINCT (started_at AT TIME ZONE 'UTC')::date AS day FROM budgets_usageevent_whole) days;
INSERT INTO budgets_usageevent SELECT * FROM budgets_usageevent_whole;
-- Without a digest: a repeat of what was booked before is a duplicate, whatever it says.
INSERT INTO budgets_usagereceipt (id, organization_id, started_at)
SELECT id, organization_id, started_at FROM budgets_usageevent_whole;
DROP TABLE budgets_usageevent_whole;
