-- A planned change belongs to a budget of its own organization (I10).
ALTER TABLE budgets_budgetchange ADD CONSTRAINT change_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);
