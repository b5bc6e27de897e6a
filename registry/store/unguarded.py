"""Change what otherwise only grows: for tables that are made of the entries, and can be made again."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Table, text


@contextmanager
def unguarded(connection: Connection, table: Table) -> Iterator[None]:
    """Take a table's triggers away inside the transaction of ``connection``, and put them back at its end.

    Only the owner of the tables may; a transaction that fails changes neither rows nor triggers.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ALTER TABLE {table.name} DISABLE TRIGGER USER"))
        yield
        connection.execute(text(f"ALTER TABLE {table.name} ENABLE TRIGGER USER"))
        return
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :name")
    guards = connection.execute(query, {"name": table.name}).all()
    for guard in guards:
        connection.execute(text(f"DROP TRIGGER {guard.name}"))
    yield
    for guard in guards:
        connection.exec_driver_sql(guard.sql)
