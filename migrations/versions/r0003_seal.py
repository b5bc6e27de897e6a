"""What waits may carry what its judge found out (``registry/seal.py``)."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("pending", sa.Column("seal", sa.LargeBinary))


def downgrade() -> None:
    raise NotImplementedError("a log does not go back: restore a backup into a new folder and run recover")
