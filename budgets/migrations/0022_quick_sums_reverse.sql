DROP AGGREGATE budgets_sum(bigint);
