DROP TRIGGER price_rule_never_deleted ON budgets_pricerule;
DROP TRIGGER price_rule_fixed ON budgets_pricerule;
DROP FUNCTION budgets_guard_price_rule();
ALTER TABLE budgets_priceversion DROP CONSTRAINT price_rule_of_same_organization;
ALTER TABLE budgets_pricerule DROP CONSTRAINT price_rule_with_organization;
ALTER TABLE budgets_pricerule DROP CONSTRAINT price_rule_one_at_a_time;
