"""The tables, their version, and the steps from one version to the next."""

from __future__ import annotations

import sqlalchemy as sa

VERSION = 2
"""Version of the tables below. Raise it with every change, and add the step to ``MIGRATIONS``."""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE measurements ADD COLUMN binary_key VARCHAR(16)",
        "CREATE INDEX measurements_binary ON measurements (binary_key)",
    ),
}
"""SQL statements that turn version n into n + 1, run before missing tables are created."""

tables = sa.MetaData()

_big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_key = sa.String(16)
_name = sa.String(255).with_variant(sa.Text(), "sqlite", "postgresql")

meta = sa.Table(
    "autotune_rlm_meta",
    tables,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)

tasks = sa.Table(
    "tasks",
    tables,
    sa.Column("key", _key, primary_key=True),
    sa.Column("kernel", _name, nullable=False, index=True),
    sa.Column("source_hash", _key, nullable=False, index=True),
    sa.Column("device", _name, nullable=False, index=True),
    sa.Column("language", sa.String(64), nullable=False),
    sa.Column("metric", sa.String(64), nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("task", sa.Text, nullable=False),
)

measurements = sa.Table(
    "measurements",
    tables,
    sa.Column("id", _big_id, primary_key=True, autoincrement=True),
    sa.Column("task_key", _key, nullable=False),
    sa.Column("candidate_key", _key, nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("value", sa.Float(53)),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("candidate", sa.Text, nullable=False),
    sa.Column("measurement", sa.Text, nullable=False),
    sa.Column("binary_key", _key),  # Task.binary, where every launch of the binary would fail so
    sa.Index("measurements_binary", "binary_key"),
    sa.Index("measurements_task", "task_key", "id"),
    sa.Index("measurements_candidate", "task_key", "candidate_key"),
    sqlite_autoincrement=True,
)

problems = sa.Table(  # the tasks that something was measured of, as _places.py compares them
    "problems",
    tables,
    sa.Column("task_key", _key, primary_key=True),
    sa.Column("source_hash", _key, nullable=False),
    sa.Column("device", _name, nullable=False),
    sa.Column("versions", _key, nullable=False),
    sa.Column("problem", sa.Text, nullable=False),
)

places = sa.Table(
    "places",
    tables,
    sa.Column("place", _key, primary_key=True),
    sa.Column("volume", sa.Float(53), primary_key=True),
    sa.Column("task_key", _key, primary_key=True, index=True),
    sqlite_with_rowid=False,
)

events = sa.Table(
    "events",
    tables,
    sa.Column("id", _big_id, primary_key=True, autoincrement=True),
    sa.Column("task_key", _key, nullable=False, index=True),
    sa.Column("kernel", _name, nullable=False),
    sa.Column("device", _name, nullable=False),
    sa.Column("created", sa.Float(53), nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sqlite_autoincrement=True,
)

requests = sa.Table(
    "requests",
    tables,
    sa.Column("task_key", _key, primary_key=True),
    sa.Column("candidates", sa.Text, nullable=False),
    sa.Column("uses", sa.Integer, nullable=False),
    sa.Column("first", sa.Float(53), nullable=False),
    sa.Column("last", sa.Float(53), nullable=False),
)
