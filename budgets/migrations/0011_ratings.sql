-- What a call costs at another price is said once more, never rewritten.
CREATE TRIGGER rating_append_only BEFORE UPDATE OR DELETE ON budgets_rating
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
