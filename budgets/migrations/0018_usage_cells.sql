-- A partition for each code of dimensions (budgets/domain/dimensions.py): what one question reads
-- lies together, and no question reads what another one needs.
CREATE TABLE budgets_usagecell (
    organization_id uuid NOT NULL,
    dimensions smallint NOT NULL,
    hours smallint NOT NULL,
    start timestamptz NOT NULL,
    first integer NOT NULL,
    second integer NOT NULL,
    calls bigint NOT NULL,
    cut_calls bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    reasoning_tokens bigint NOT NULL,
    charge_nanos bigint NOT NULL,
    PRIMARY KEY (organization_id, dimensions, hours, start, first, second)
) PARTITION BY LIST (dimensions);
DO $$
DECLARE
    most constant int := 12;
BEGIN
    FOR a IN 0..most LOOP
        FOR b IN 0..most LOOP
            IF b = 0 OR (a > 0 AND b > a) THEN
                EXECUTE format(
                    'CREATE TABLE budgets_usagecell_%s PARTITION OF budgets_usagecell FOR VALUES IN (%s)',
                    100 * a + b, 100 * a + b
                );
            END IF;
        END LOOP;
    END LOOP;
END $$;

-- What was booked so far is folded anew, in batches of its hours: the hourly rows are made of it.
DELETE FROM budgets_usagerollup;
DELETE FROM budgets_rollupwatermark WHERE name = 'usage';
INSERT INTO budgets_unfoldeduse (received_at, events, starts, ratings)
SELECT max(received_at), array_agg(id), array_agg(started_at), '{}'
FROM (
    SELECT id, started_at, received_at,
        row_number() OVER (ORDER BY started_at, id) / 5000 AS batch
    FROM budgets_usageevent
) AS numbered GROUP BY batch ORDER BY batch;
INSERT INTO budgets_unfoldeduse (received_at, events, starts, ratings)
SELECT max(at), '{}', '{}', array_agg(id)
FROM (SELECT id, at, row_number() OVER (ORDER BY at, id) / 5000 AS batch FROM budgets_rating) AS numbered
GROUP BY batch ORDER BY batch;
