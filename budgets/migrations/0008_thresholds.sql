-- Firings and questions belong to a balance of their budget, and to their own organization (I10).
ALTER TABLE budgets_thresholdfiring ADD CONSTRAINT firing_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);
ALTER TABLE budgets_thresholdfiring ADD CONSTRAINT firing_balance_of_same_organization
    FOREIGN KEY (balance_id, organization_id) REFERENCES budgets_balance (id, organization_id);
ALTER TABLE budgets_approvalrequest ADD CONSTRAINT approval_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);
ALTER TABLE budgets_approvalrequest ADD CONSTRAINT approval_balance_of_same_organization
    FOREIGN KEY (balance_id, organization_id) REFERENCES budgets_balance (id, organization_id);
ALTER TABLE budgets_notification ADD CONSTRAINT notification_budget_of_same_organization
    FOREIGN KEY (budget_id, organization_id) REFERENCES budgets_budget (id, organization_id);
