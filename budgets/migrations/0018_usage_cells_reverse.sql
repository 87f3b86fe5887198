-- The fold of before reads everything again.
DELETE FROM budgets_usagerollup;
DELETE FROM budgets_rollupwatermark WHERE name = 'usage';
DROP TABLE budgets_usagecell;
