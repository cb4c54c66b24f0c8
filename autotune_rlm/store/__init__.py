"""Every measurement ever made, per candidate, in SQLite by default and any SQLAlchemy database.

Safe for many threads and processes; each measurement is written at once. Only JSON is stored, so
nothing that is read from a database is ever executed.
"""

from autotune_rlm.store._distance import problem_distance, task_distance
from autotune_rlm.store._engine import StoreError, default_path, means_none
from autotune_rlm.store._files import export_store, import_file
from autotune_rlm.store._info import StoreInfo
from autotune_rlm.store._recall import Recall
from autotune_rlm.store._requests import Request
from autotune_rlm.store._store import Store
from autotune_rlm.store._weights import read_rounds, weights_folder, weights_in_use, weights_version

__all__ = [
    "Recall",
    "Request",
    "Store",
    "StoreError",
    "StoreInfo",
    "default_path",
    "export_store",
    "import_file",
    "means_none",
    "problem_distance",
    "read_rounds",
    "task_distance",
    "weights_folder",
    "weights_in_use",
    "weights_version",
]
