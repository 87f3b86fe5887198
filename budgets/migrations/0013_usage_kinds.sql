-- Rates inside JSON obey what rates in columns obey.
ALTER TABLE budgets_priceversion ADD CONSTRAINT price_kinds_not_negative CHECK (
    NOT jsonb_path_exists(kinds, '$.* ? (@.type() != "number" || @ < 0)')
    AND NOT jsonb_path_exists(variants, '$.*.* ? (@.type() != "null" && (@.type() != "number" || @ < 0))')
    AND jsonb_typeof(kinds) = 'object' AND jsonb_typeof(variants) = 'object'
);
