-- An own limit belongs to a budget of its own organization (I10).
ALTER TABLE budgets_budgetoverride ADD CONSTRAINT override_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);

-- What names a budget's balances, and what it counts, now has filters and sessions too.
CREATE OR REPLACE FUNCTION budgets_guard_budget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.scope_kind, NEW.scope_id, NEW.scope_session, NEW.filters,
        NEW.per, NEW.unit, NEW.window_kind, NEW.period, NEW.time_zone, NEW.anchor_day)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.scope_kind, OLD.scope_id, OLD.scope_session, OLD.filters,
        OLD.per, OLD.unit, OLD.window_kind, OLD.period, OLD.time_zone, OLD.anchor_day) THEN
        RAISE EXCEPTION 'budget %: scope, filters, split, unit and window never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'budget_identity_fixed';
    END IF;
    RETURN NEW;
END $$;
