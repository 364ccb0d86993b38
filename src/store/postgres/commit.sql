-- Applies each group of changes as a whole or not at all. A single statement is a transaction
-- without further round trips. No join touches the table of records: each row is found by the
-- primary key, whatever the planner believes about the sizes of tables.
WITH input AS MATERIALIZED (
    SELECT *
    FROM unnest($1::uuid[], $2::int4[], $3::int4[], $4::int8[], $5::bool[], $6::bytea[],
                $7::int8[], $8::bool[], $9::uuid[], $10::int8[], $11::int8[], $12::uuid[])
      AS t(id, grp, pos, expect, resent, data, version, open, owner, first_seen, expires, subject)
    -- Empty in a store other than the opened store, so that the statement changes and returns
    -- no rows there.
    WHERE (SELECT s.store_id FROM oncegate.store AS s) = $13::uuid
),
-- Records to change. Every session locks in the order of ids. A locking read sees the current
-- version of a record that was changed after the statement began.
locked AS MATERIALIZED (
    SELECT r.id, r.version, r.data FROM oncegate.record AS r
    WHERE r.id = ANY (ARRAY(SELECT id FROM input WHERE expect IS NOT NULL OR resent))
    ORDER BY r.id FOR UPDATE
),
-- Records in the way of a claim, as of the beginning of the statement. The records belong to other
-- attempts and are read only: a lock would deadlock with a session that has inserted new records
-- and waits to change the locked record.
claimed AS MATERIALIZED (
    SELECT r.id, r.version, r.data FROM oncegate.record AS r
    WHERE r.id = ANY (ARRAY(SELECT id FROM input WHERE expect IS NULL AND NOT resent))
),
compared AS MATERIALIZED (
    SELECT i.*, p.id IS NOT NULL AS present, p.data AS found,
           p.version IS NOT DISTINCT FROM i.expect
               OR (i.resent AND p.data IS NOT DISTINCT FROM i.data) AS matches
    FROM input AS i LEFT JOIN (SELECT * FROM locked UNION ALL SELECT * FROM claimed) AS p
      ON p.id = i.id
),
decided AS MATERIALIZED (
    SELECT c.*, bool_and(c.matches) OVER (PARTITION BY c.grp) AS applies FROM compared AS c
),
-- A record that a concurrent session inserted after the statement began is invisible above, and
-- met here as a conflict.
inserted AS (
    INSERT INTO oncegate.record (id, version, data, open, owner, first_seen, expires, subject)
    SELECT id, version, data, open, owner, first_seen, expires, subject FROM decided
    WHERE applies AND NOT present AND data IS NOT NULL ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id
),
-- An update in a form that the planner cannot turn into a join. The rows are present and locked.
updated AS (
    INSERT INTO oncegate.record AS r (id, version, data, open, owner, first_seen, expires, subject)
    SELECT id, version, data, open, owner, first_seen, expires, subject FROM decided
    WHERE applies AND present AND data IS NOT NULL ORDER BY id
    ON CONFLICT (id) DO UPDATE
    SET version = excluded.version, data = excluded.data, open = excluded.open,
        owner = excluded.owner, first_seen = excluded.first_seen, expires = excluded.expires,
        subject = excluded.subject
    RETURNING r.id
),
deleted AS (
    DELETE FROM oncegate.record AS r
    WHERE r.id = ANY (ARRAY(SELECT id FROM decided WHERE applies AND present AND data IS NULL))
    RETURNING r.id
),
counted AS MATERIALIZED (
    SELECT d.grp, min(d.pos) FILTER (WHERE NOT d.matches) AS lost,
           count(*) FILTER (WHERE d.applies AND (d.present OR d.data IS NOT NULL)) AS wanted,
           count(*) FILTER (
               WHERE d.applies AND (d.present OR d.data IS NOT NULL) AND d.id NOT IN (
                   SELECT id FROM inserted UNION ALL SELECT id FROM updated
                   UNION ALL SELECT id FROM deleted
           )) AS missed
    FROM decided AS d GROUP BY d.grp
)
-- `whole`: a group with some rows applied and some lost to a race must not stay; the division by
-- zero rolls the statement back.
-- `durable`: the changes are on disk when the statement returns, whatever the settings of the
-- server, the role or a pooler's other clients. Stronger settings are left alone.
SELECT c.grp, c.lost, d.found, c.missed > 0 AS raced,
       1 / CASE WHEN c.missed > 0 AND c.missed < c.wanted THEN 0 ELSE 1 END AS whole,
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END AS durable
FROM counted AS c LEFT JOIN decided AS d ON d.grp = c.grp AND d.pos = c.lost
