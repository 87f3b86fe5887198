-- Seals are never changed: the chain only grows.
CREATE TRIGGER seal_append_only BEFORE UPDATE OR DELETE ON budgets_journalseal
    FOR EACH ROW EXECUTE FUNCTION budgets_refuse_change();
ALTER SEQUENCE budgets_transfer_sequence OWNED BY budgets_transfer.sequence;
ALTER TABLE budgets_journalseal ADD CONSTRAINT seal_digests_are_sha256
    CHECK (octet_length(content) = 32 AND octet_length(digest) = 32);
