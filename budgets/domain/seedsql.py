"""The SQL of seeded days: usage events made up inside the database, with their receipts.

Everything is drawn from a hash of the organization's slug, the day and the event's place in it, so
the same words give the same use. Agents, users and models are drawn unevenly, as they are used; an
agent keeps to its own users, models and skills. The charge is what the price version says, rounded
up once.
"""

# ruff: noqa: S608 -- nothing stands in it but numbers of ours

USERS_OF_AGENT, MODELS_OF_AGENT, SKILLS_OF_AGENT = 12, 3, 5
USERS, SKILLS, NODES_OF_MODEL = 1_000, 40, 2


def _draw(place: int) -> str:
    """A number in [0, 1) out of the event's hash: 16 bits from this place on."""
    return f"(get_byte(h, {2 * place}) * 256 + get_byte(h, {2 * place + 1})) / 65536.0::float8"


# Parameters: organization, slug, day, count, agents (ids, teams, projects), models, providers,
# prices (ids, and rates in nano-dollars per million tokens: input, cached input, output), now.
SEED_DAY = f"""
WITH agents AS MATERIALIZED (
    SELECT * FROM unnest(%(agents)s::uuid[], %(teams)s::uuid[], %(projects)s::uuid[])
        WITH ORDINALITY AS a (agent_id, team_id, project_id, place)
), models AS MATERIALIZED (
    SELECT * FROM unnest(%(models)s::text[], %(providers)s::text[], %(prices)s::uuid[],
        %(inputs)s::bigint[], %(cached)s::bigint[], %(outputs)s::bigint[])
        WITH ORDINALITY AS m (
            model, provider, price_id, input_rate, cached_rate, output_rate, place
        )
), hashed AS MATERIALIZED (  -- once for each event, not once for each draw
    SELECT n, sha256(convert_to(%(slug)s || %(day)s || n, 'UTF8')) AS h
    FROM generate_series(0, %(count)s - 1) AS n
), drawn AS (
    SELECT n, h, floor(cardinality(%(agents)s::uuid[]) * power({_draw(0)}, 2))::int AS agent,
        {_draw(1)} AS which_user, {_draw(2)} AS which_model, {_draw(3)} AS which_skill,
        {_draw(4)} AS prompt, {_draw(5)} AS kept, {_draw(6)} AS answer, {_draw(7)} AS ending,
        {_draw(8)} AS tier, {_draw(9)} AS env, {_draw(10)} AS node,
        %(day)s::timestamptz + n * (interval '1 day' / %(count)s) AS started_at
    FROM hashed
), used AS (
    SELECT d.*, 50 + floor(8000 * power(prompt, 3))::bigint AS input_tokens,
        1 + floor(1500 * power(answer, 2))::bigint AS output_tokens,
        (agent + floor({MODELS_OF_AGENT} * power(which_model, 2))::int)
            %% cardinality(%(models)s::text[]) AS model_place
    FROM drawn d
), charged AS (
    SELECT u.*, CASE WHEN kept < 0.4 THEN floor(input_tokens * kept)::bigint ELSE 0 END AS cached
    FROM used u
), booked AS (
    INSERT INTO budgets_usageevent (
        id, organization_id, team_id, project_id, agent_id, session, "user", model, provider, node,
        skill, endpoint, sidecar, started_at, input_tokens, cached_input_tokens, cache_write_tokens,
        output_tokens, reasoning_tokens, cache_write_long_tokens, input_audio_tokens,
        input_image_tokens, output_audio_tokens, service_tier, gpu_ms, tool_calls, charge_nanos,
        price_version_id, outcome, stream, tags, parts, attempt, duration_ms, ttft_ms,
        finish_reason, stopped_by, upstream_id, presumed, estimated, received_at
    )
    SELECT
        (lpad(to_hex(floor(extract(epoch FROM c.started_at) * 1000)::bigint), 12, '0') || '7'
            || substr(encode(h, 'hex'), 45, 3) || '8' || substr(encode(h, 'hex'), 48, 15))::uuid,
        %(organization)s, a.team_id, a.project_id, a.agent_id, 's' || (n / 20),
        'user-' || ((agent * 13 + floor({USERS_OF_AGENT} * power(which_user, 2))::int) %% {USERS}),
        m.model, m.provider, m.model || '-' || floor({NODES_OF_MODEL} * node)::int,
        CASE WHEN which_skill < 0.3 THEN '' ELSE 'skill-' || (
            (agent * 3 + floor({SKILLS_OF_AGENT} * which_skill)::int) %% {SKILLS}) END,
        CASE WHEN model_place %% 4 = 3 THEN 'responses' ELSE 'chat' END, NULL, c.started_at,
        input_tokens, cached, 0, output_tokens, 0, 0, 0, 0, 0,
        CASE WHEN tier < 0.9 THEN '' WHEN tier < 0.97 THEN 'priority' ELSE 'flex' END, 0, 0,
        ceil(((input_tokens - cached)::numeric * input_rate + cached::numeric * cached_rate
            + output_tokens::numeric * output_rate) / 1000000)::bigint,
        m.price_id, CASE WHEN ending < 0.965 THEN 'completed' WHEN ending < 0.98 THEN 'clamped'
            WHEN ending < 0.99 THEN 'client_gone' WHEN ending < 0.998 THEN 'cut' ELSE 'killed' END,
        n %% 2 = 0,
        jsonb_build_object('env', CASE WHEN env < 0.7 THEN 'prod' WHEN env < 0.9 THEN 'test'
            ELSE 'dev' END),
        '[]', 1, 20 * output_tokens, 200, 'stop', '', '', false, false, %(now)s
    FROM charged c JOIN agents a ON a.place = agent + 1 JOIN models m ON m.place = model_place + 1
    ORDER BY c.started_at
    RETURNING id, organization_id, started_at
), received AS (
    INSERT INTO budgets_usagereceipt (id, organization_id, started_at)
    SELECT id, organization_id, started_at FROM booked
), batches AS (
    SELECT id, started_at, row_number() OVER (ORDER BY started_at) / 20000 AS batch FROM booked
)
INSERT INTO budgets_unfoldeduse (received_at, events, starts, ratings)
SELECT %(now)s, array_agg(id), array_agg(started_at), '{{}}' FROM batches GROUP BY batch
RETURNING id
"""
