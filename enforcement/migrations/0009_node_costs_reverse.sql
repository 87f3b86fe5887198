DROP TRIGGER IF EXISTS node_cost_append_only ON enforcement_nodecost;
