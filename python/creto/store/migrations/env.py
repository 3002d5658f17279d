"""Alembic's entry: runs inside the transaction that `creto.store` has begun."""

from alembic import context

from creto.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
