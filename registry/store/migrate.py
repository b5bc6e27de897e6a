"""Bring a database to this code's schema, and refuse one that is not there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine

import migrations
from registry.errors import WrongSchema
from registry.store.schema import REVISION


def upgrade(engine: Engine) -> None:
    """Run the missing migrations in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.execution_options(writes=True).connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.upgrade(config, REVISION)


def check_schema(engine: Engine) -> None:
    """Raise ``WrongSchema`` unless the database has exactly this code's revision."""
    with engine.connect() as connection:
        found = MigrationContext.configure(connection).get_current_revision()
    if found != REVISION:
        raise WrongSchema(
            f"the database has schema {found or 'none'}, this code needs {REVISION}",
            next_command="quotary registry upgrade"
            if (found or "") < REVISION
            else "install the newer Quotary",
        )
