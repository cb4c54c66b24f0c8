"""``python -m autotune_rlm``: the command line."""

from autotune_rlm.cli import app

if __name__ == "__main__":
    app()
