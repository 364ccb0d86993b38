-- The tables of an oncegate store in PostgreSQL 12 or later.
--
-- With `create` set in [store], a gateway whose role may create a schema runs the first part of
-- this file on its own. Otherwise an operator runs the whole file once, as the database owner:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -d DATABASE -f postgres.sql
--
-- after creating the role: CREATE ROLE oncegate LOGIN PASSWORD '...';

CREATE SCHEMA oncegate;

-- Identity of the store, in a single row. `expect_id` in [store] pins store_id.
CREATE TABLE oncegate.store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    store_id uuid NOT NULL,
    -- Version of the record layout.
    schema integer NOT NULL,
    -- Version of these tables.
    tables integer NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);

-- Records. The columns besides id and data repeat parts of data, for comparisons and indexes.
CREATE TABLE oncegate.record (
    id uuid PRIMARY KEY,
    -- Unsigned 64-bit number, stored as signed.
    version bigint NOT NULL,
    data bytea NOT NULL,
    -- True for records in flight or unknown.
    open boolean NOT NULL,
    -- Process with the record in flight.
    owner uuid,
    -- First claim and expiry in milliseconds since 1970.
    first_seen bigint NOT NULL,
    expires bigint,
    subject uuid
);

-- Every change of a record changes an index, so space for updates in place would stay unused: the
-- fill factors are the defaults. A row is replaced once or twice and rarely read; compression would
-- cost the server more than it saves.
ALTER TABLE oncegate.record ALTER COLUMN data SET STORAGE EXTERNAL;

-- Records in flight or unknown, and locks of serialized batches: one index serves both queries,
-- because every claim must be entered.
CREATE INDEX record_open ON oncegate.record (first_seen, id) WHERE open OR owner IS NOT NULL;
CREATE INDEX record_expires ON oncegate.record (expires, id) WHERE expires IS NOT NULL;
CREATE INDEX record_subject ON oncegate.record (subject, first_seen, id) WHERE subject IS NOT NULL;
-- Grows at its end, which stays in memory.
CREATE INDEX record_time ON oncegate.record (first_seen, id);

-- Gateways, each with the end of its lease.
CREATE TABLE oncegate.replica (
    id uuid PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

-- Names under which the gateways keep keys, in a single row once a gateway was started.
CREATE TABLE oncegate.names (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL,
    data bytea NOT NULL
);

INSERT INTO oncegate.store (store_id, schema, tables)
VALUES (md5(random()::text || clock_timestamp()::text || random()::text)::uuid, 6, 3);

-- Part 2: the rights that a gateway needs, for the role `oncegate`.

GRANT USAGE ON SCHEMA oncegate TO oncegate;
GRANT SELECT ON oncegate.store TO oncegate;
GRANT SELECT, INSERT, UPDATE, DELETE ON oncegate.record, oncegate.replica, oncegate.names TO oncegate;
