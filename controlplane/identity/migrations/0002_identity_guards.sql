-- A row can only point to rows of its own organization (I10), whoever writes it.
ALTER TABLE identity_project ADD CONSTRAINT project_team_of_same_organization
    FOREIGN KEY (team_id, organization_id) REFERENCES identity_team (id, organization_id);
ALTER TABLE identity_agent ADD CONSTRAINT agent_team_of_same_organization
    FOREIGN KEY (team_id, organization_id) REFERENCES identity_team (id, organization_id);
ALTER TABLE identity_agent ADD CONSTRAINT agent_project_of_same_organization
    FOREIGN KEY (project_id, organization_id) REFERENCES identity_project (id, organization_id);
ALTER TABLE identity_agentkey ADD CONSTRAINT agent_key_agent_of_same_organization
    FOREIGN KEY (agent_id, organization_id) REFERENCES identity_agent (id, organization_id);

-- The policy's revision only rises.
CREATE FUNCTION identity_guard_organization() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id <> OLD.id OR NEW.policy_revision < OLD.policy_revision THEN
        RAISE EXCEPTION 'organization %: id and policy revision never fall back', OLD.id
            USING ERRCODE = 'integrity_constraint_violation',
                  CONSTRAINT = 'organization_policy_revision_rises';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER organization_policy_revision_rises BEFORE UPDATE ON identity_organization
    FOR EACH ROW EXECUTE FUNCTION identity_guard_organization();

-- An agent keeps its id, organization and slug, for its balances hang on them (L15).
CREATE FUNCTION identity_guard_agent() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION 'agent %: agents are retired, never deleted', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
    END IF;
    IF (NEW.id, NEW.organization_id, NEW.slug) IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.slug) THEN
        RAISE EXCEPTION 'agent %: id, organization and slug never change', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agent_identity_fixed BEFORE UPDATE OR DELETE ON identity_agent
    FOR EACH ROW EXECUTE FUNCTION identity_guard_agent();

-- A secret is what it was issued as, and what was revoked or used stays so.
CREATE FUNCTION identity_guard_agent_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.agent_id, NEW.prefix, NEW.key_hash) IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.agent_id, OLD.prefix, OLD.key_hash)
       OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
        RAISE EXCEPTION 'agent key %: issued once, revoked for ever', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER agent_key_fixed BEFORE UPDATE ON identity_agentkey
    FOR EACH ROW EXECUTE FUNCTION identity_guard_agent_key();

CREATE FUNCTION identity_guard_api_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF (NEW.id, NEW.organization_id, NEW.person_id, NEW.kind, NEW.prefix, NEW.token_hash,
        NEW.scopes) IS DISTINCT FROM
       (OLD.id, OLD.organization_id, OLD.person_id, OLD.kind, OLD.prefix, OLD.token_hash,
        OLD.scopes)
       OR (OLD.revoked_at IS NOT NULL AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at) THEN
        RAISE EXCEPTION 'API token %: issued once, revoked for ever', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER api_token_fixed BEFORE UPDATE ON identity_apitoken
    FOR EACH ROW EXECUTE FUNCTION identity_guard_api_token();

CREATE FUNCTION identity_guard_sign_in_link() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.used_at IS NOT NULL OR (NEW.person_id, NEW.token_hash, NEW.expires_at)
       IS DISTINCT FROM (OLD.person_id, OLD.token_hash, OLD.expires_at) THEN
        RAISE EXCEPTION 'sign-in link %: it works once and never changes', OLD.id
            USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER sign_in_link_once BEFORE UPDATE ON identity_signinlink
    FOR EACH ROW EXECUTE FUNCTION identity_guard_sign_in_link();

-- An organization keeps an owner: checked when the transaction ends, as owners may be exchanged.
-- The lock on the organization makes two who leave at the same time wait for each other.
CREATE FUNCTION identity_keep_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM identity_organization WHERE id = OLD.organization_id FOR NO KEY UPDATE;
    IF NOT FOUND OR EXISTS (
        SELECT 1 FROM identity_membership
        WHERE organization_id = OLD.organization_id AND role = 'owner'
    ) THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'organization %: one owner must stay', OLD.organization_id
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = TG_NAME;
END $$;
CREATE CONSTRAINT TRIGGER membership_keeps_an_owner
    AFTER UPDATE OR DELETE ON identity_membership
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.role = 'owner') EXECUTE FUNCTION identity_keep_an_owner();
