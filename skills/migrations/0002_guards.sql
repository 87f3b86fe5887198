-- What Python promises about skills, cards and grants, held by the database.

CREATE FUNCTION skills_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% rows of % are refused', TG_OP, TG_TABLE_NAME USING ERRCODE = '23514';
END $$;

-- A skill's identity and content never change.
CREATE FUNCTION skills_skill_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.name, NEW.directory, NEW.root_digest, NEW.manifest_digest,
        NEW.files, NEW.bundle, NEW.bundle_digest, NEW.front_matter, NEW.first_seen_at)
       IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.name, OLD.directory, OLD.root_digest, OLD.manifest_digest,
        OLD.files, OLD.bundle, OLD.bundle_digest, OLD.front_matter, OLD.first_seen_at) THEN
        RAISE EXCEPTION 'the content of a skill never changes' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER skill_guard BEFORE UPDATE ON skills_skill
    FOR EACH ROW EXECUTE FUNCTION skills_skill_guard();
CREATE TRIGGER skill_no_delete BEFORE DELETE ON skills_skill
    FOR EACH ROW EXECUTE FUNCTION skills_refuse();

-- Revisions of a name rise by one. Two inserts at once meet in the unique constraint.
CREATE FUNCTION skills_card_revision() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    latest integer;
BEGIN
    SELECT coalesce(max(card_rev), 0) INTO latest FROM skills_skillcard
        WHERE organization_id = NEW.organization_id AND name = NEW.name;
    IF NEW.card_rev <> latest + 1 THEN
        RAISE EXCEPTION 'card revision % does not follow %', NEW.card_rev, latest
            USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER skill_card_revision BEFORE INSERT ON skills_skillcard
    FOR EACH ROW EXECUTE FUNCTION skills_card_revision();

-- A card's signed text never changes; its state only moves on.
CREATE FUNCTION skills_card_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (to_jsonb(NEW) - ARRAY['state', 'state_changed_at', 'state_reason'])
       IS DISTINCT FROM
       (to_jsonb(OLD) - ARRAY['state', 'state_changed_at', 'state_reason']) THEN
        RAISE EXCEPTION 'a signed card never changes' USING ERRCODE = '23514';
    END IF;
    IF (OLD.state, NEW.state) NOT IN
       (('active', 'superseded'), ('active', 'revoked'), ('superseded', 'revoked')) THEN
        RAISE EXCEPTION 'a card does not go from % to %', OLD.state, NEW.state
            USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER skill_card_guard BEFORE UPDATE ON skills_skillcard
    FOR EACH ROW EXECUTE FUNCTION skills_card_guard();
CREATE TRIGGER skill_card_no_delete BEFORE DELETE ON skills_skillcard
    FOR EACH ROW EXECUTE FUNCTION skills_refuse();

-- A grant is revoked once and never edited.
CREATE FUNCTION skills_grant_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.revoked_at IS NOT NULL OR NEW.revoked_at IS NULL OR
       (to_jsonb(NEW) - ARRAY['revoked_at', 'revoked_by', 'revoke_reason'])
       IS DISTINCT FROM
       (to_jsonb(OLD) - ARRAY['revoked_at', 'revoked_by', 'revoke_reason']) THEN
        RAISE EXCEPTION 'a grant can only be revoked, once' USING ERRCODE = '23514';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER skill_grant_guard BEFORE UPDATE ON skills_skillgrant
    FOR EACH ROW EXECUTE FUNCTION skills_grant_guard();
CREATE TRIGGER skill_grant_no_delete BEFORE DELETE ON skills_skillgrant
    FOR EACH ROW EXECUTE FUNCTION skills_refuse();

-- Revocations are final.
CREATE TRIGGER revocation_append_only BEFORE UPDATE OR DELETE ON skills_revocation
    FOR EACH ROW EXECUTE FUNCTION skills_refuse();
