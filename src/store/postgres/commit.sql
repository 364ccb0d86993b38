-- Makes each group of changes whole or leaves it. One statement, so that it is one transaction
-- without a word more to the server. No join touches the table of records: whatever the planner
-- believes about sizes, each row of it is found by the primary key.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int8[], $5::bool[], $6::bytea[],
                $7::int8[], $8::bool[], $9::uuid[], $10::int8[], $11::uuid[])
      AS t(id, grp, pos, expect, again, data, version, open, owner, expires, subject)
    -- In another store than the one that was opened there is nothing to do, and no answer.
    WHERE (SELECT s.store_id FROM oncegate.store AS s) = $12::uuid
),
-- What is to be changed, locked in the order of their ids by everybody. What others changed since
-- this statement began is seen as it is now.
locked AS MATERIALIZED (
    SELECT r.id, r.version, r.data FROM oncegate.record AS r
    WHERE r.id = ANY (ARRAY(SELECT id FROM input WHERE expect IS NOT NULL OR again))
    ORDER BY r.id FOR UPDATE
),
-- What a claim meets was there when this statement began. It is others', and only looked at: to lock
-- it would close circles with those who have new records and want to change that one.
met AS MATERIALIZED (
    SELECT r.id, r.version, r.data FROM oncegate.record AS r
    WHERE r.id = ANY (ARRAY(SELECT id FROM input WHERE expect IS NULL AND NOT again))
),
compared AS MATERIALIZED (
    SELECT i.*, p.id IS NOT NULL AS there, p.data AS found,
           p.version IS NOT DISTINCT FROM i.expect
               OR (i.again AND p.data IS NOT DISTINCT FROM i.data) AS fits
    FROM input AS i LEFT JOIN (SELECT * FROM locked UNION ALL SELECT * FROM met) AS p
      ON p.id = i.id
),
judged AS MATERIALIZED (
    SELECT c.*, bool_and(c.fits) OVER (PARTITION BY c.grp) AS done FROM compared AS c
),
-- Somebody else's row, put there since this statement began, is met here and not seen above.
inserted AS (
    INSERT INTO oncegate.record (id, version, data, open, owner, expires, subject)
    SELECT id, version, data, open, owner, expires, subject FROM judged
    WHERE done AND NOT there AND data IS NOT NULL ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id
),
-- An update, in a form that cannot become a join: these rows are there, and locked.
updated AS (
    INSERT INTO oncegate.record AS r (id, version, data, open, owner, expires, subject)
    SELECT id, version, data, open, owner, expires, subject FROM judged
    WHERE done AND there AND data IS NOT NULL ORDER BY id
    ON CONFLICT (id) DO UPDATE
    SET version = excluded.version, data = excluded.data, open = excluded.open,
        owner = excluded.owner, expires = excluded.expires, subject = excluded.subject
    RETURNING r.id
),
deleted AS (
    DELETE FROM oncegate.record AS r
    WHERE r.id = ANY (ARRAY(SELECT id FROM judged WHERE done AND there AND data IS NULL))
    RETURNING r.id
),
counted AS MATERIALIZED (
    SELECT j.grp, min(j.pos) FILTER (WHERE NOT j.fits) AS lost,
           count(*) FILTER (WHERE j.done AND (j.there OR j.data IS NOT NULL)) AS wanted,
           count(*) FILTER (WHERE j.done AND (j.there OR j.data IS NOT NULL) AND j.id NOT IN (
               SELECT id FROM inserted UNION ALL SELECT id FROM updated
               UNION ALL SELECT id FROM deleted
           )) AS missed
    FROM judged AS j GROUP BY j.grp
)
-- However the server, the role or a pooler's other users set it, these changes are on disk when the
-- statement has ended. What asks for more than that is left.
-- A group of which some rows were made and some met another's must not stay: the division by zero
-- undoes the statement.
SELECT c.grp, c.lost, j.found, c.missed > 0 AS unmade,
       1 / CASE WHEN c.missed > 0 AND c.missed < c.wanted THEN 0 ELSE 1 END AS whole,
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END AS durable
FROM counted AS c LEFT JOIN judged AS j ON j.grp = c.grp AND j.pos = c.lost
