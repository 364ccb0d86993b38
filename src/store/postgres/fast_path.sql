-- Applies claims of absent records and replacements, by far the most frequent changes, as one
-- statement and one transaction. Groups that this statement can neither apply nor explain are left
-- to commit.sql.
--
-- New records are inserted first, in the order of their ids; then existing records are locked, in
-- the same order (the settings of a connection allow index scans only). A claim may wait for a
-- session that replaces a record, but a session that replaces records no longer waits for claims.
-- So no cycle of waits is possible, except between two processes that change one record while one
-- of them runs commit.sql. The server ends one statement of such a deadlock, and the statement is
-- repeated.
--
-- No join touches the table of records: each row is found by the primary key, whatever the planner
-- believes about the sizes of tables.
--
-- Empty in a store other than the opened store, so that the statement changes no rows there.
WITH here AS MATERIALIZED (
    SELECT FROM oncegate.store AS s WHERE s.store_id = $20::uuid
),
-- Records present at the beginning of the statement are not inserted: the insertion would wait for
-- a session that is changing them. Records inserted since then are waited for.
inserted AS (
    INSERT INTO oncegate.record (id, version, data, open, owner, first_seen, expires, subject)
    SELECT id, version, data, open, owner, first_seen, expires, subject
    FROM unnest($1::uuid[], $3::int8[], $4::bytea[], $5::bool[], $6::uuid[], $7::int8[],
                $8::int8[], $9::uuid[])
      AS c(id, version, data, open, owner, first_seen, expires, subject)
    WHERE EXISTS (SELECT FROM here)
      AND c.id NOT IN (SELECT r.id FROM oncegate.record AS r WHERE r.id = ANY ($1::uuid[]))
    ON CONFLICT (id) DO NOTHING RETURNING id
),
-- A record changed after the statement began is compared in its current version, and left alone.
-- width_bucket finds the position of an id among the sorted ids by binary search.
updated AS (
    UPDATE oncegate.record AS r
    SET version = ($13::int8[])[width_bucket(r.id, $10::uuid[])],
        data = ($14::bytea[])[width_bucket(r.id, $10::uuid[])],
        open = ($15::bool[])[width_bucket(r.id, $10::uuid[])],
        owner = ($16::uuid[])[width_bucket(r.id, $10::uuid[])],
        first_seen = ($17::int8[])[width_bucket(r.id, $10::uuid[])],
        expires = ($18::int8[])[width_bucket(r.id, $10::uuid[])],
        subject = ($19::uuid[])[width_bucket(r.id, $10::uuid[])]
    WHERE r.id = ANY ($10::uuid[])
      AND r.version = ($12::int8[])[width_bucket(r.id, $10::uuid[])]
      AND EXISTS (SELECT FROM here)
      -- Always true; the count forces the insertions to run first.
      AND (SELECT count(*) FROM inserted) >= 0
    RETURNING r.id
)
-- A row for each change that was not applied, with the record in the way of a claim as of the
-- beginning of the statement. If the change is one of several in its group, the division by zero
-- rolls the statement back, because a group must not be applied in part. The counts skip the search
-- when every change was applied.
SELECT c.id, (SELECT r.data FROM oncegate.record AS r WHERE r.id = c.id) AS found,
       1 / CASE WHEN c.grouped THEN 0 ELSE 1 END AS whole, NULL::text AS durable
FROM unnest($1::uuid[], $2::bool[]) AS c(id, grouped)
WHERE (SELECT count(*) FROM inserted) < cardinality($1::uuid[])
  AND EXISTS (SELECT FROM here)
  AND c.id NOT IN (SELECT id FROM inserted)
UNION ALL
SELECT u.id, NULL, 1 / CASE WHEN u.grouped THEN 0 ELSE 1 END, NULL
FROM unnest($10::uuid[], $11::bool[]) AS u(id, grouped)
WHERE (SELECT count(*) FROM updated) < cardinality($10::uuid[])
  AND EXISTS (SELECT FROM here)
  AND u.id NOT IN (SELECT id FROM updated)
-- A row without an id identifies the store. `durable` is explained in commit.sql.
UNION ALL
SELECT NULL, NULL, 1,
       CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
            THEN set_config('synchronous_commit', 'on', true) END
FROM here
