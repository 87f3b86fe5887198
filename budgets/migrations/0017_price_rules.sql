-- One rule of a kind at a time for a name.
ALTER TABLE budgets_pricerule ADD CONSTRAINT price_rule_one_at_a_time EXCLUDE USING gist (
    organization_id WITH =,
    kind WITH =,
    provider WITH =,
    model WITH =,
    match WITH =,
    tstzrange(valid_from, valid_to) WITH &&
);

-- A price follows a rule of its own organization (I10).
ALTER TABLE budgets_pricerule ADD CONSTRAINT price_rule_with_organization
    UNIQUE (id, organization_id);
ALTER TABLE budgets_priceversion ADD CONSTRAINT price_rule_of_same_organization
    FOREIGN KEY (rule_id, organization_id) REFERENCES budgets_pricerule (id, organization_id);

-- A rule is never edited, only ended: the prices that follow from it name it.
CREATE FUNCTION budgets_guard_price_rule() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF to_jsonb(NEW) - 'valid_to' IS DISTINCT FROM to_jsonb(OLD) - 'valid_to' THEN
        RAISE EXCEPTION 'price rule %: it never changes, add another', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'price_rule_fixed';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER price_rule_fixed BEFORE UPDATE ON budgets_pricerule
    FOR EACH ROW EXECUTE FUNCTION budgets_guard_price_rule();
CREATE TRIGGER price_rule_never_deleted BEFORE DELETE ON budgets_pricerule
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
