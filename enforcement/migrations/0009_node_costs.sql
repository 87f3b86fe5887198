-- What was said of a cost stays: a correction is another row.
CREATE TRIGGER node_cost_append_only BEFORE UPDATE OR DELETE ON enforcement_nodecost
    FOR EACH ROW EXECUTE FUNCTION enforcement_refuse_change();
