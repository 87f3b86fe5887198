-- What a rolling window has spent is what stands in its sub-buckets.
CREATE FUNCTION budgets_sum(amounts bigint[]) RETURNS numeric LANGUAGE sql IMMUTABLE STRICT
    PARALLEL SAFE AS $$ SELECT coalesce(sum(a), 0) FROM unnest(amounts) AS a $$;
ALTER TABLE budgets_balance ADD CONSTRAINT balance_ring_adds_up CHECK (
    ring_bucket_ms IS NULL
    OR (budgets_sum(ring_spent) = spent_amount AND budgets_sum(ring_overrun) = overrun_amount
        AND cardinality(ring_spent) = cardinality(ring_overrun) AND 0 <= ALL (ring_spent)
        AND 0 <= ALL (ring_overrun))
);

-- What names a budget's balances now has fiscal anchors, an end and a rolling length too.
CREATE OR REPLACE FUNCTION budgets_guard_budget() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.scope_kind, NEW.scope_id, NEW.scope_session, NEW.filters,
        NEW.per, NEW.unit, NEW.window_kind, NEW.period, NEW.time_zone, NEW.anchor_day,
        NEW.anchor_month, NEW.ends_at, NEW.rolling_s, NEW.rolling_parts)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.scope_kind, OLD.scope_id, OLD.scope_session, OLD.filters,
        OLD.per, OLD.unit, OLD.window_kind, OLD.period, OLD.time_zone, OLD.anchor_day,
        OLD.anchor_month, OLD.ends_at, OLD.rolling_s, OLD.rolling_parts) THEN
        RAISE EXCEPTION 'budget %: scope, filters, split, unit and window never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'budget_identity_fixed';
    END IF;
    RETURN NEW;
END $$;

-- Overrun leaves a rolling window with time; nowhere else is it taken back. What is closed stays.
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
       AND NEW.cap_amount <> NEW.limit_amount THEN
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
