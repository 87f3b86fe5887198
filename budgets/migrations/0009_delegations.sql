-- A delegation moves between two balances of its budget, in its own organization (I10).
ALTER TABLE budgets_delegation ADD CONSTRAINT delegation_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);
ALTER TABLE budgets_delegation ADD CONSTRAINT delegation_parent_of_same_organization
    FOREIGN KEY (parent_id, organization_id) REFERENCES budgets_balance (id, organization_id);
ALTER TABLE budgets_delegation ADD CONSTRAINT delegation_child_of_same_organization
    FOREIGN KEY (child_id, organization_id) REFERENCES budgets_balance (id, organization_id);
