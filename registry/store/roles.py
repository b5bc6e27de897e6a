"""The SQL that makes PostgreSQL's roles for a registry: web, sequencer and reader. None owns anything.

Triggers refuse changes to what was appended whoever asks; roles keep most programs from asking. The owner of
the tables makes and upgrades them, and is used for nothing else.
"""

import re

from quotary.errors import Usage
from registry.store import schema

NAMES = ("web", "sequencer", "reader")
PREFIX = re.compile(r"[a-z][a-z0-9_]{0,40}")


def script(prefix: str) -> str:
    """Give one transaction that makes ``<prefix>_web``, ``_sequencer`` and ``_reader``, and what each may.

    It runs as the tables' owner with the right to make roles, and after every upgrade once more.
    """
    if not PREFIX.fullmatch(prefix):
        raise Usage(f"a prefix is of a-z, 0-9 and _, found {prefix!r}")
    roles = {name: f"{prefix}_{name}" for name in NAMES}
    everybody = ", ".join(roles.values())
    lines = ["BEGIN", *map(_made, roles.values())]
    lines += [
        "DO $$ BEGIN EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database()); "
        f"EXECUTE format('GRANT CONNECT ON DATABASE %I TO {everybody}', current_database()); END $$",
        "DO $$ BEGIN EXECUTE format('REVOKE ALL ON SCHEMA %I FROM PUBLIC', current_schema()); "
        f"EXECUTE format('GRANT USAGE ON SCHEMA %I TO {everybody}', current_schema()); END $$",
    ]
    tables = ", ".join(sorted((*schema.metadata.tables, "alembic_version")))
    lines += [f"REVOKE ALL ON {tables} FROM PUBLIC, {everybody}", f"GRANT SELECT ON {tables} TO {everybody}"]
    lines += [f"GRANT INSERT (leaf_hash, data, received, seal) ON pending TO {roles['web']}"]
    lines += [f"GRANT USAGE ON SEQUENCE pending_id_seq TO {roles['web']}"]
    lines += _sequencers(roles["sequencer"])
    return ";\n".join([*lines, "COMMIT"]) + ";\n"


def _made(role: str) -> str:
    known = f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"  # noqa: S608  # the pattern above bounds it
    return f"DO $$ BEGIN IF NOT EXISTS ({known}) THEN CREATE ROLE {role} NOLOGIN; END IF; END $$"


def _sequencers(role: str) -> list[str]:
    return [
        f"GRANT INSERT ON {', '.join(schema.APPEND_ONLY)} TO {role}",
        f"GRANT DELETE ON pending TO {role}",
        f"GRANT UPDATE ON head TO {role}",
        f"GRANT INSERT, UPDATE ON published TO {role}",
        # It must see whether the server's standbys are synchronous.
        f"GRANT pg_read_all_stats TO {role}",
    ]
