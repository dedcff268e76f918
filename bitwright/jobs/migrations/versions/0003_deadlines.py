"""An index of the deadlines of jobs that have not ended: a sweep no longer reads the whole queue."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    only = sa.text("deadline IS NOT NULL AND finished_at IS NULL")
    op.create_index("jobs_deadline", "jobs", ["deadline"], sqlite_where=only, postgresql_where=only)
