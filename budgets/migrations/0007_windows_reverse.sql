ALTER TABLE budgets_balance DROP CONSTRAINT balance_ring_adds_up;
DROP FUNCTION budgets_sum(bigint[]);
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
CREATE OR REPLACE FUNCTION budgets_guard_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.budget_id, NEW.value, NEW.window_start, NEW.window_end)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.budget_id, OLD.value, OLD.window_start, OLD.window_end)
    THEN
        RAISE EXCEPTION 'balance %: budget, value and window never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'balance_place_fixed';
    END IF;
    IF NEW.hard AND OLD.hard AND NEW.cap_amount > OLD.cap_amount
       AND NEW.cap_amount <> NEW.limit_amount THEN
        RAISE EXCEPTION 'balance %: a cap rises only to its limit', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'balance_cap_falls_towards_limit';
    END IF;
    IF NEW.overrun_amount < OLD.overrun_amount THEN
        RAISE EXCEPTION 'balance %: overrun is never taken back', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'balance_overrun_never_falls';
    END IF;
    RETURN NEW;
END $$;
