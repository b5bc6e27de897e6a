"""Alembic migrations of the registry's database; ``registry.store.upgrade`` runs them."""
