-- What was said is kept as it was said.
CREATE TRIGGER rejected_append_only BEFORE UPDATE OR DELETE ON budgets_rejectedevent
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
