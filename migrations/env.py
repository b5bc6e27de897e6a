"""Alembic's entry: runs on the connection that ``registry.store.upgrade`` hands over, and on no other."""

from alembic import context
from sqlalchemy import Connection

from registry.store.schema import metadata


def run() -> None:
    connection = context.config.attributes["connection"]
    assert isinstance(connection, Connection)
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


run()
