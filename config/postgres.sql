-- The tables of an oncegate store in PostgreSQL 12 or later.
--
-- A gateway whose role may create a schema makes them itself, with the first part of this file, when
-- `create` in [store] is true. Elsewhere an operator runs the whole file once, as the owner of the
-- database:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -d DATABASE -f postgres.sql
--
-- and creates the role before it: CREATE ROLE oncegate LOGIN PASSWORD '...';

CREATE SCHEMA oncegate;

-- What this store is; one row. `expect_id` in [store] pins store_id.
CREATE TABLE oncegate.store (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    store_id uuid NOT NULL,
    -- Of the records' layout.
    schema integer NOT NULL,
    -- Of these tables.
    tables integer NOT NULL,
    created timestamptz NOT NULL DEFAULT now()
);

-- The records. All but id and data repeat what data holds, for comparing and for the indexes.
CREATE TABLE oncegate.record (
    id uuid PRIMARY KEY,
    -- Sixty-four bits without a sign, cast to ones with.
    version bigint NOT NULL,
    data bytea NOT NULL,
    -- In flight or unknown.
    open boolean NOT NULL,
    -- Who has it in flight.
    owner uuid,
    -- Milliseconds since 1970.
    expires bigint,
    subject uuid
);

-- Every change of a record changes an index, so room for updates in place would stay unused: the
-- fill factors are the defaults. A row is replaced once or twice and read seldom; to compress it
-- would cost the server more than it saves.
ALTER TABLE oncegate.record ALTER COLUMN data SET STORAGE EXTERNAL;

-- In flight, unknown, or a turn: one index for both questions, since every claim has to enter it.
CREATE INDEX record_open ON oncegate.record (id) WHERE open OR owner IS NOT NULL;
CREATE INDEX record_expires ON oncegate.record (expires, id) WHERE expires IS NOT NULL;
CREATE INDEX record_subject ON oncegate.record (subject, id) WHERE subject IS NOT NULL;

-- The gateways, and until when each is taken for alive.
CREATE TABLE oncegate.replica (
    id uuid PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

INSERT INTO oncegate.store (store_id, schema, tables)
VALUES (md5(random()::text || clock_timestamp()::text || random()::text)::uuid, 3, 1);

-- Part 2: all the rights a gateway needs, for the role `oncegate`.

GRANT USAGE ON SCHEMA oncegate TO oncegate;
GRANT SELECT ON oncegate.store TO oncegate;
GRANT SELECT, INSERT, UPDATE, DELETE ON oncegate.record, oncegate.replica TO oncegate;
