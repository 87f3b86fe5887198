ALTER TABLE budgets_budgetoverride DROP CONSTRAINT override_budget_of_same_organization;

CREATE OR REPLACE FUNCTION budgets_guard_budget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.scope_kind, NEW.scope_id, NEW.per, NEW.unit,
        NEW.window_kind, NEW.period, NEW.time_zone, NEW.anchor_day)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.scope_kind, OLD.scope_id, OLD.per, OLD.unit,
        OLD.window_kind, OLD.period, OLD.time_zone, OLD.anchor_day) THEN
        RAISE EXCEPTION 'budget %: scope, split, unit and window never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'budget_identity_fixed';
    END IF;
    RETURN NEW;
END $$;
