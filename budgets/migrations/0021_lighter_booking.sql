-- Ids and instants hardly shrink: to try costs more than it saves.
ALTER TABLE budgets_unfoldeduse
    ALTER COLUMN events SET STORAGE EXTERNAL,
    ALTER COLUMN starts SET STORAGE EXTERNAL;
