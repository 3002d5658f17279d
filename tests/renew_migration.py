"""Writes the first migration anew from the tables; for use until the first release, when its steps become fixed.

Run: .tools/bin/python tests/renew_migration.py
"""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

from alembic.autogenerate import api as autogenerate
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

import creto.store
from creto.store.tables import metadata

HEADER = '''"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

import creto.store.tables

revision = "{revision}"
down_revision = None


def upgrade() -> None:
    """Makes every table."""
    {steps}
'''


def main() -> None:
    with create_engine("sqlite://").connect() as connection:
        context = MigrationContext.configure(connection, opts={"target_metadata": metadata, "user_module_prefix": None})
        script = autogenerate.produce_migrations(context, metadata)
        assert script.upgrade_ops is not None
        steps = autogenerate.render_python_code(script.upgrade_ops, migration_context=context)
    steps = "\n".join(line for line in steps.splitlines() if not line.strip().startswith("#")).strip()
    target = Path(creto.store.__file__).parent / "migrations" / "versions" / "0001_first.py"
    target.parent.mkdir(exist_ok=True)
    # Until the first release the steps change in place: their digest tells what was made by other steps.
    revision = f"0001_{hashlib.sha256(steps.encode()).hexdigest()[:8]}"
    target.write_text(HEADER.format(steps=steps, revision=revision))
    schema = target.parents[2] / "_schema.py"
    schema.write_text(re.sub(r'^HEAD = ".*"$', f'HEAD = "{revision}"', schema.read_text(), flags=re.MULTILINE))
    subprocess.run([Path(sys.executable).parent / "ruff", "format", "-q", target], check=True)


if __name__ == "__main__":
    main()
