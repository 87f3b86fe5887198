-- What the ledger's rows may never do, whoever writes them. Names say what is refused.
CREATE EXTENSION IF NOT EXISTS btree_gist;

-- Balances are updated all the time: leave room on the page for heap-only updates.
ALTER TABLE budgets_balance SET (fillfactor = 50);
ALTER TABLE budgets_lease SET (fillfactor = 70);

-- A row can only point to rows of its own organization (I10).
ALTER TABLE budgets_balance ADD CONSTRAINT balance_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);
ALTER TABLE budgets_lease ADD CONSTRAINT lease_balance_of_same_organization
    FOREIGN KEY (balance_id, organization_id) REFERENCES budgets_balance (id, organization_id);
ALTER TABLE budgets_transfer ADD CONSTRAINT transfer_balance_of_same_organization
    FOREIGN KEY (balance_id, organization_id) REFERENCES budgets_balance (id, organization_id);
ALTER TABLE budgets_transfer ADD CONSTRAINT transfer_lease_of_same_balance
    FOREIGN KEY (lease_id, balance_id) REFERENCES budgets_lease (id, balance_id);

-- One price at a time for a model.
ALTER TABLE budgets_priceversion ADD CONSTRAINT price_one_at_a_time EXCLUDE USING gist (
    (coalesce(organization_id, '00000000-0000-0000-0000-000000000000'::uuid)) WITH =,
    provider WITH =,
    model WITH =,
    match WITH =,
    tstzrange(valid_from, valid_to) WITH &&
);

CREATE FUNCTION budgets_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
END $$;

CREATE TRIGGER transfer_append_only BEFORE UPDATE OR DELETE ON budgets_transfer
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
CREATE TRIGGER usage_event_append_only BEFORE UPDATE OR DELETE ON budgets_usageevent
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();

-- A budget keeps what names its balances.
CREATE FUNCTION budgets_guard_budget() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER budget_identity_fixed BEFORE UPDATE ON budgets_budget
    FOR EACH ROW EXECUTE FUNCTION budgets_guard_budget();

-- A balance keeps its place, and a cap only falls, or rises to a raised limit (L9).
-- Turning a soft balance hard takes what was committed before as its cap.
CREATE FUNCTION budgets_guard_balance() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER balance_guard BEFORE UPDATE ON budgets_balance
    FOR EACH ROW EXECUTE FUNCTION budgets_guard_balance();

-- A lease is never deleted, moves only along its states, and its watermarks never fall (I7).
CREATE FUNCTION budgets_guard_lease() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.state IN ('settled', 'written_off') THEN
        RAISE EXCEPTION 'lease %: % is final', OLD.id, OLD.state
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'lease_terminal_is_final';
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.balance_id, NEW.spool, NEW.group_key, NEW.amount,
        NEW.granted_at)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.balance_id, OLD.spool, OLD.group_key, OLD.amount,
        OLD.granted_at) THEN
        RAISE EXCEPTION 'lease %: balance, spool, ask and amount never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'lease_identity_fixed';
    END IF;
    IF NEW.used_amount < OLD.used_amount OR NEW.returned_amount < OLD.returned_amount
       OR NEW.overrun_amount < OLD.overrun_amount THEN
        RAISE EXCEPTION 'lease %: watermarks never fall', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'lease_watermarks_never_fall';
    END IF;
    IF NEW.state <> OLD.state AND NOT EXISTS (
        SELECT FROM (VALUES
            ('granted', 'recalled'), ('granted', 'suspended'), ('granted', 'settled'),
            ('recalled', 'suspended'), ('recalled', 'settled'),
            ('suspended', 'settled'), ('suspended', 'written_off')
        ) AS edge (was, becomes) WHERE was = OLD.state AND becomes = NEW.state
    ) THEN
        RAISE EXCEPTION 'lease %: % never becomes %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'lease_edge_unknown';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER lease_guard BEFORE UPDATE ON budgets_lease
    FOR EACH ROW EXECUTE FUNCTION budgets_guard_lease();
CREATE TRIGGER lease_never_deleted BEFORE DELETE ON budgets_lease
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();

-- A price is never edited, only ended: a charge names the version it was made with.
CREATE FUNCTION budgets_guard_price() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'valid_to' IS DISTINCT FROM to_jsonb(OLD) - 'valid_to' THEN
        RAISE EXCEPTION 'price version %: rates never change, add a version', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'price_rates_fixed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER price_rates_fixed BEFORE UPDATE ON budgets_priceversion
    FOR EACH ROW EXECUTE FUNCTION budgets_guard_price();

-- One that has begun is kept for ever; one that is only announced may be withdrawn.
CREATE TRIGGER price_never_deleted BEFORE DELETE ON budgets_priceversion
    FOR EACH ROW WHEN (OLD.valid_from <= now()) EXECUTE FUNCTION budgets_refuse_change();
