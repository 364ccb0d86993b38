-- Claims that expect nothing, and records that take the place of others: nearly all there is. What
-- this does not make, and cannot say why, commit.sql does. One statement, one transaction.
--
-- Records that are there are locked in the order of their ids (the settings of a connection leave
-- an index scan only), then the new ones come in that order: the same everywhere, so that nobody
-- waits in a circle. No join touches the table of records: whatever the planner believes about
-- sizes, each row of it is found by the primary key.
WITH claims AS MATERIALIZED (
    SELECT c.*, (SELECT r.data FROM oncegate.record AS r WHERE r.id = c.id) AS found
    FROM unnest($1::uuid[], $2::bool[], $3::int8[], $4::bytea[], $5::bool[], $6::uuid[],
                $7::int8[], $8::uuid[])
      AS c(id, several, version, data, open, owner, expires, subject)
    -- In another store than the one that was opened there is nothing to do.
    WHERE (SELECT s.store_id FROM oncegate.store AS s) = $18::uuid
),
-- A record that changed since this statement began is met as it is now, and left alone.
updated AS (
    UPDATE oncegate.record AS r
    SET (version, data, open, owner, expires, subject) = (
        SELECT ($12::int8[])[at.at], ($13::bytea[])[at.at], ($14::bool[])[at.at],
               ($15::uuid[])[at.at], ($16::int8[])[at.at], ($17::uuid[])[at.at]
        FROM (SELECT array_position($9::uuid[], r.id) AS at OFFSET 0) AS at
    )
    WHERE r.id = ANY ($9::uuid[])
      AND r.version = ($11::int8[])[array_position($9::uuid[], r.id)]
      AND (SELECT s.store_id FROM oncegate.store AS s) = $18::uuid
    RETURNING r.id
),
-- The count is there to have the updates made before.
inserted AS (
    INSERT INTO oncegate.record (id, version, data, open, owner, expires, subject)
    SELECT id, version, data, open, owner, expires, subject FROM claims
    WHERE found IS NULL AND (SELECT count(*) FROM updated) >= 0
    ON CONFLICT (id) DO NOTHING RETURNING id
)
-- A line for each row that was not made, and what a claim met. When it is one of several in a group,
-- the division by zero undoes the statement: none of them may stay.
SELECT c.id, c.found, 1 / CASE WHEN c.several THEN 0 ELSE 1 END AS whole, NULL::text AS durable
FROM claims AS c WHERE c.id NOT IN (SELECT id FROM inserted)
UNION ALL
SELECT u.id, NULL, 1 / CASE WHEN u.several THEN 0 ELSE 1 END, NULL
FROM unnest($9::uuid[], $10::bool[]) AS u(id, several)
WHERE u.id NOT IN (SELECT id FROM updated)
-- A line without an id: it is this store. For the rest of it see commit.sql.
UNION ALL
SELECT NULL, NULL, 1,
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END
FROM oncegate.store AS s WHERE s.store_id = $18::uuid
