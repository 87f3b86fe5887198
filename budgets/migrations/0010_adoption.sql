-- While leases are adopted that a failover forgot, a cap follows what was committed before (L11).
CREATE OR REPLACE FUNCTION budgets_guard_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.budget_id, NEW.value, NEW.window_start, NEW.window_end,
        NEW.ring_bucket_ms)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.budget_id, OLD.value, OLD.window_start, OLD.window_end,
        OLD.ring_bucket_ms)
    THEN
        RAISE EXCEPTION 'balance %: budget, value and window never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'balance_place_fixed';
    END IF;
    IF NEW.hard AND OLD.hard AND NEW.cap_amount > OLD.cap_amount
       AND NEW.cap_amount <> NEW.limit_amount
       AND current_setting('comptroller.adopting', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'balance %: a cap rises only to its limit', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'balance_cap_falls_towards_limit';
    END IF;
    IF NEW.overrun_amount < OLD.overrun_amount AND NEW.ring_bucket_ms IS NULL THEN
        RAISE EXCEPTION 'balance %: overrun is never taken back', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'balance_overrun_never_falls';
    END IF;
    IF OLD.closed_at IS NOT NULL AND (NEW.closed_at IS NULL OR NEW.held_amount > OLD.held_amount)
    THEN
        RAISE EXCEPTION 'balance %: what is closed stays closed', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'balance_closed_stays_closed';
    END IF;
    RETURN NEW;
END $$;
