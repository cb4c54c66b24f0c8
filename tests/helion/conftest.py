"""Without Helion there is nothing to test here."""

import importlib.util

collect_ignore = [] if importlib.util.find_spec("helion") else ["test_helion.py"]
