"""Many rows at once, past SQLAlchemy: ``executemany`` on SQLite, ``COPY`` and arrays on PostgreSQL.

SQLAlchemy costs as much for a row as SQLite does. Rows are tuples in the order of the table's columns,
without an ``id`` that the database gives. Names come from our own schema, values never stand in the text of
a statement; errors are SQLAlchemy's.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, CursorResult, Table
from sqlalchemy.exc import DBAPIError

Row = tuple[object, ...]


def insert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows that are new."""
    if not rows:
        return
    if _is_postgresql(connection):
        _copy(connection, table, rows)
    else:
        connection.exec_driver_sql(_insert_text(table), list(rows))


def insert_new(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert rows; one that the table has already, by any of its unique columns, stays as it is."""
    if not rows:
        return
    if _is_postgresql(connection):
        arrays = ", ".join(f"%s::{kind}[]" for kind in _kinds(connection, table))
        query = f"INSERT INTO {table.name} ({_names(table)}) SELECT * FROM unnest({arrays})"
        columns = tuple(map(list, zip(*rows, strict=True)))
        connection.exec_driver_sql(f"{query} ON CONFLICT DO NOTHING", columns)
    else:
        connection.exec_driver_sql(_insert_text(table) + " ON CONFLICT DO NOTHING", list(rows))


def delete(connection: Connection, table: Table, ids: Sequence[int]) -> None:
    """Delete rows by their ``id``."""
    if not ids:
        return
    if _is_postgresql(connection):
        connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE id = ANY(%s)", (list(ids),))
    else:
        connection.exec_driver_sql(f"DELETE FROM {table.name} WHERE id = ?", [(found,) for found in ids])


def run(connection: Connection, query: str, values: Mapping[str, object]) -> CursorResult[*tuple[Any, ...]]:
    """Run a statement in whose text ``{name}`` stands for the value of that name."""
    mark = "%({})s" if _is_postgresql(connection) else ":{}"
    text = query.format(**{name: mark.format(name) for name in values})
    return connection.exec_driver_sql(text, dict(values) or None)


def lock_head(connection: Connection) -> None:
    """Let nobody else sign: on PostgreSQL two could read the same; on SQLite only one transaction writes."""
    if _is_postgresql(connection):
        connection.exec_driver_sql("SELECT id FROM head FOR UPDATE")


def select_among(
    connection: Connection, query: str, keys: Sequence[bytes] | Sequence[str], values: Mapping[str, object]
) -> Sequence[tuple[Any, Any]]:
    """Run a query of two columns, in which ``{among}`` is a select of the keys as ``key``, each a row.

    It is the same text for any number of keys, so that the database reads it once.
    """
    if not keys:
        return []
    are_bytes = isinstance(keys[0], bytes)
    if _is_postgresql(connection):
        among = f"SELECT key FROM unnest({{keys}}::{'bytea' if are_bytes else 'text'}[]) AS named (key)"
        return run(connection, query.replace("{among}", among), {"keys": list(keys), **values}).all()
    among = f"SELECT {'unhex(value)' if are_bytes else 'value'} AS key FROM json_each({{keys}})"
    names = json.dumps([key.hex() if isinstance(key, bytes) else key for key in keys])
    return run(connection, query.replace("{among}", among), {"keys": names, **values}).all()


def given(table: Table) -> list[Column[object]]:
    """Give the columns whose values come with the row."""
    return [column for column in table.columns if column.autoincrement is not True]


def _is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _copy(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    import psycopg  # a registry on SQLite does not load it

    query = f"COPY {table.name} ({_names(table)}) FROM STDIN (FORMAT BINARY)"
    try:
        with connection.connection.cursor() as cursor, cursor.copy(query) as copy:  # type: ignore[attr-defined]  # psycopg's
            copy.set_types(_kinds(connection, table))
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance(query, None, error, psycopg.Error) from error


def _insert_text(table: Table) -> str:
    marks = ", ".join("?" for _ in given(table))
    return f"INSERT INTO {table.name} ({_names(table)}) VALUES ({marks})"


def _names(table: Table) -> str:
    return ", ".join(column.name for column in given(table))


def _kinds(connection: Connection, table: Table) -> list[str]:
    return [column.type.compile(connection.dialect).lower() for column in given(table)]
