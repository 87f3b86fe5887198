DROP TRIGGER IF EXISTS rejected_append_only ON budgets_rejectedevent;
