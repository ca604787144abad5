"""The tables, and how they become those of a newer privet while older ones go on serving.

The law of this module: a migration takes nothing away that a privet in use needs, and keeps nobody waiting for long.
"""

import time

import psycopg

from privet.stores.base import StoreError
from privet.stores.postgres.commit import Connection, execute

# Each entry takes the schema one version further; only ever append. Replicas of older privets serve before, while and
# after it is made, and may be started again: so it only adds, and what it adds they need not know.
MIGRATIONS = (
    (
        """
        CREATE TABLE privet.record (
            kind    text COLLATE "C" NOT NULL,
            id      text COLLATE "C" NOT NULL,
            version bigint NOT NULL,
            mark    bigint NOT NULL,  -- of the commit that wrote it
            body    bytea NOT NULL,
            names   text,             -- JSON: [[unique, ...], [index, ...]]
            expires timestamptz,
            files   text,             -- JSON: {"name": "content"}, each byte the character of its number
            PRIMARY KEY (kind, id)
        )
        """,
        "CREATE INDEX record_expires ON privet.record (expires) WHERE expires IS NOT NULL",
        """
        CREATE TABLE privet.unique_name (
            kind text COLLATE "C", name text COLLATE "C", id text COLLATE "C" NOT NULL, PRIMARY KEY (kind, name)
        )
        """,
        """
        CREATE TABLE privet.index_name (
            kind text COLLATE "C", name text COLLATE "C", id text COLLATE "C", PRIMARY KEY (kind, name, id)
        )
        """,
        # For people, and read by nothing of ours: certificates without keys, as ca/certificates.py writes them.
        """
        CREATE VIEW privet.certificate AS
        SELECT
            record.id, document.serial,
            ARRAY(SELECT pair ->> 1 FROM jsonb_array_elements(document.identifiers) AS pair) AS names,
            document.status, document.not_before, document.not_after, document.revoked, document.reason,
            document.requester AS account, document.request AS "order", document.profile, document.authority,
            record.expires AS kept_until, decode(document.der, 'base64') AS der
        FROM privet.record AS record CROSS JOIN LATERAL jsonb_to_record(convert_from(record.body, 'UTF8')::jsonb)
            AS document (
                serial text, identifiers jsonb, status text, not_before timestamptz, not_after timestamptz,
                revoked timestamptz, reason integer, requester text, request text, profile text, authority text,
                der text
            )
        WHERE record.kind = 'certificate'
        """,
    ),
    # A client's certificate may have a common name that is none of its identifiers; it is one of the names.
    (
        """
        CREATE OR REPLACE VIEW privet.certificate AS
        SELECT
            record.id, document.serial,
            array_remove(ARRAY[document.common_name], NULL)
                || ARRAY(SELECT pair ->> 1 FROM jsonb_array_elements(document.identifiers) AS pair) AS names,
            document.status, document.not_before, document.not_after, document.revoked, document.reason,
            document.requester AS account, document.request AS "order", document.profile, document.authority,
            record.expires AS kept_until, decode(document.der, 'base64') AS der
        FROM privet.record AS record CROSS JOIN LATERAL jsonb_to_record(convert_from(record.body, 'UTF8')::jsonb)
            AS document (
                serial text, identifiers jsonb, common_name text, status text, not_before timestamptz,
                not_after timestamptz, revoked timestamptz, reason integer, requester text, request text, profile text,
                authority text, der text
            )
        WHERE record.kind = 'certificate'
        """,
    ),
    # What certificates are found by, so that people need not know how names are kept. An order is kept as long as its
    # certificate, which is how those of an account are found without an index of their own.
    (
        """
        CREATE VIEW privet.certificate_name AS
        SELECT name, id FROM privet.index_name WHERE kind = 'certificate'
        UNION ALL
        SELECT name, id FROM privet.unique_name WHERE kind = 'certificate'
        UNION ALL
        SELECT owned.name, (convert_from(record.body, 'UTF8')::jsonb ->> 'certificate') COLLATE "C"
        FROM privet.index_name AS owned JOIN privet.record AS record USING (kind, id)
        WHERE kind = 'order' AND owned.name LIKE 'account:%'
        """,
        "ALTER TABLE privet.schema_version ADD COLUMN IF NOT EXISTS oldest integer NOT NULL DEFAULT 1",
    ),
)

# The oldest schema whose privets can live with what these migrations make. Something may be taken away once every
# privet that needs it has had a successor that does not: then this says from which schema on they do not.
OLDEST = 1

_MIGRATING = 0x707269766574  # the number of our advisory lock
# Whoever serves waits behind a migration that waits for somebody's long query: briefly, and then they have their turn.
_LONGEST_WAIT, _TRIES, _PAUSE = "500ms", 40, 0.5


def migrate(connection: Connection, name: str) -> None:
    """Make the schema, or take it as far as it is known here. Raises `StoreError` if it is not for us; `name` is what
    the database is called there."""
    ((encoding,),) = execute(connection, "SHOW server_encoding").fetchall()
    if encoding != "UTF8":
        raise StoreError(f"{name} keeps texts in {encoding}: make it anew with ENCODING 'UTF8'")
    tries = 0
    while _version(connection, name) < len(MIGRATIONS):
        try:
            _migrate_now(connection, name)
        except psycopg.errors.LockNotAvailable:
            tries += 1
            if tries == _TRIES:
                raise
            time.sleep(_PAUSE)


def _migrate_now(connection: Connection, name: str) -> None:
    with connection.transaction():
        execute(connection, "SET LOCAL lock_timeout = 0")  # somebody else may be at it
        execute(connection, "SELECT pg_advisory_xact_lock(%b::bigint)", [_MIGRATING])
        execute(connection, f"SET LOCAL lock_timeout = '{_LONGEST_WAIT}'")
        version = _version(connection, name)
        if not execute(connection, "SELECT to_regnamespace('privet')").fetchall()[0][0]:
            execute(connection, "CREATE SCHEMA privet")
        if not version:
            execute(
                connection, "CREATE TABLE privet.schema_version (version integer NOT NULL, oldest integer NOT NULL)"
            )
            execute(connection, "INSERT INTO privet.schema_version VALUES (0, 0)")
        for statement in (statement for migration in MIGRATIONS[version:] for statement in migration):
            execute(connection, statement)
        if version < len(MIGRATIONS):
            newest = [len(MIGRATIONS), OLDEST]
            execute(connection, "UPDATE privet.schema_version SET version = %b, oldest = %b", newest)


def _version(connection: Connection, name: str) -> int:
    """The version of the schema that is there, 0 if there is none. Raises `StoreError` if it is not for us."""
    there = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('privet')"
    tables = [table for (table,) in execute(connection, there)]
    if not tables:
        return 0
    if "schema_version" not in tables:
        raise StoreError(f"{name} has a schema named privet of another program")
    ((row,),) = execute(connection, "SELECT to_jsonb(schema_version) FROM privet.schema_version").fetchall()
    known, version = len(MIGRATIONS), int(row["version"])
    oldest = int(row.get("oldest", 1))  # which the first schemas did not say
    if oldest > known:
        raise StoreError(
            f"{name} is from a newer privet, and this one is too old for it: schema {version} is for those that know "
            f"{oldest} at least, and this one knows {known}"
        )
    return version
