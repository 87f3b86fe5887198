ALTER TABLE budgets_usageevent RENAME TO budgets_usageevent_parts;
ALTER TABLE budgets_usageevent_parts RENAME CONSTRAINT budgets_usageevent_pkey TO budgets_usageevent_parts_pkey;
DROP INDEX usage_by_time, usage_by_agent, usage_by_session, usage_by_receipt;
CREATE TABLE budgets_usageevent (
    LIKE budgets_usageevent_parts INCLUDING DEFAULTS INCLUDING CONSTRAINTS,
    PRIMARY KEY (id)
);
INSERT INTO budgets_usageevent SELECT * FROM budgets_usageevent_parts;
CREATE INDEX usage_by_time ON budgets_usageevent (organization_id, started_at DESC);
CREATE INDEX usage_by_agent ON budgets_usageevent (organization_id, agent_id, started_at DESC);
CREATE INDEX usage_by_session ON budgets_usageevent (organization_id, session) WHERE session <> '';
CREATE INDEX usage_by_receipt ON budgets_usageevent (received_at);
CREATE TRIGGER usage_event_append_only BEFORE UPDATE OR DELETE ON budgets_usageevent
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
DROP TABLE budgets_usageevent_parts;
DROP FUNCTION budgets_usage_partition(date);
