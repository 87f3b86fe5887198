ALTER TABLE budgets_journalseal DROP CONSTRAINT seal_digests_are_sha256;
ALTER SEQUENCE budgets_transfer_sequence OWNED BY NONE;
DROP TRIGGER seal_append_only ON budgets_journalseal;
