"""Run by Alembic: migrate on the connection (and inside the transaction) that `bitwright.jobs.migrate` hands over."""

from alembic import context

from bitwright.jobs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=False)
context.run_migrations()
