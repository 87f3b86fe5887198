DROP TRIGGER IF EXISTS rating_append_only ON budgets_rating;
