"""Alembic's entry: runs the migrations on the connection that `melete.store.database.upgrade` hands over."""

from alembic import context

from melete.store.models import Model

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Model.metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
