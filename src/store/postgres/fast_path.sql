-- Claims that expect nothing, and records that take the place of others: nearly all there is. What
-- this does not make, and cannot say why, commit.sql does. One statement, one transaction.
--
-- New records come first, in the order of their ids; then those that are there are locked, in that
-- order too (the settings of a connection leave an index scan only). A claim may wait for a record
-- that another statement replaces, and who replaces waits for nobody's claim any more: nobody waits in
-- a circle, unless two processes change one record and meet with commit.sql. The server ends one of
-- those, and it is tried again.
--
-- No join touches the table of records: whatever the planner believes about sizes, each row of it is
-- found by the primary key.
--
-- In another store than the one that was opened there is nothing to do.
WITH here AS MATERIALIZED (
    SELECT FROM oncegate.store AS s WHERE s.store_id = $18::uuid
),
-- What was there when this statement began is not tried: the insertion would wait for whoever changes
-- it just now. What came since is waited for.
inserted AS (
    INSERT INTO oncegate.record (id, version, data, open, owner, expires, subject)
    SELECT id, version, data, open, owner, expires, subject
    FROM unnest($1::uuid[], $3::int8[], $4::bytea[], $5::bool[], $6::uuid[], $7::int8[],
                $8::uuid[])
      AS c(id, version, data, open, owner, expires, subject)
    WHERE EXISTS (SELECT FROM here)
      AND c.id NOT IN (SELECT r.id FROM oncegate.record AS r WHERE r.id = ANY ($1::uuid[]))
    ON CONFLICT (id) DO NOTHING RETURNING id
),
-- A record that changed since this statement began is met as it is now, and left alone. Where an id
-- stands among the ids is found by halving: they are sorted.
updated AS (
    UPDATE oncegate.record AS r
    SET version = ($12::int8[])[width_bucket(r.id, $9::uuid[])],
        data = ($13::bytea[])[width_bucket(r.id, $9::uuid[])],
        open = ($14::bool[])[width_bucket(r.id, $9::uuid[])],
        owner = ($15::uuid[])[width_bucket(r.id, $9::uuid[])],
        expires = ($16::int8[])[width_bucket(r.id, $9::uuid[])],
        subject = ($17::uuid[])[width_bucket(r.id, $9::uuid[])]
    WHERE r.id = ANY ($9::uuid[])
      AND r.version = ($11::int8[])[width_bucket(r.id, $9::uuid[])]
      AND EXISTS (SELECT FROM here)
      -- The count is there to have the claims made before.
      AND (SELECT count(*) FROM inserted) >= 0
    RETURNING r.id
)
-- A line for each row that was not made, and what a claim met: what was there when this statement
-- began. When it is one of several in a group, the division by zero undoes the statement: none of
-- them may stay. The counts spare the search where all were made.
SELECT c.id, (SELECT r.data FROM oncegate.record AS r WHERE r.id = c.id) AS found,
       1 / CASE WHEN c.several THEN 0 ELSE 1 END AS whole, NULL::text AS durable
FROM unnest($1::uuid[], $2::bool[]) AS c(id, several)
WHERE (SELECT count(*) FROM inserted) < cardinality($1::uuid[])
  AND EXISTS (SELECT FROM here)
  AND c.id NOT IN (SELECT id FROM inserted)
UNION ALL
SELECT u.id, NULL, 1 / CASE WHEN u.several THEN 0 ELSE 1 END, NULL
FROM unnest($9::uuid[], $10::bool[]) AS u(id, several)
WHERE (SELECT count(*) FROM updated) < cardinality($9::uuid[])
  AND EXISTS (SELECT FROM here)
  AND u.id NOT IN (SELECT id FROM updated)
-- A line without an id: it is this store. For the rest of it see commit.sql.
UNION ALL
SELECT NULL, NULL, 1,
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END
FROM here
