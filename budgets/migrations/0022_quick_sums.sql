-- A sum of bigints that is a bigint, and fails where it does not fit. PostgreSQL's own is a numeric,
-- since it must never fail: it costs twice as much.
CREATE AGGREGATE budgets_sum(bigint) (
    SFUNC = int8pl, STYPE = bigint, INITCOND = '0', COMBINEFUNC = int8pl, PARALLEL = SAFE
);
