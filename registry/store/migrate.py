"""Bring a database to this code's schema (Alembic, ``migrations/``)."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

import migrations
from registry.store.schema import REVISION


def upgrade(engine: Engine, revision: str = REVISION) -> None:
    """Run the missing migrations up to a revision in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        if engine.dialect.name == "postgresql":
            # Who waits for a table's lock holds up everybody behind; the operator tries again instead.
            connection.execute(text("SET LOCAL lock_timeout = '2s'"))
        command.upgrade(config, revision)
