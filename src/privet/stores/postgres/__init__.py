"""Records in a PostgreSQL database, for any number of processes on any number of machines: how a commit gets in, the
tables, and the store."""

from privet.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
