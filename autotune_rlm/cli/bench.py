"""``autotune-rlm bench``: one subcommand per kind of record, each in a module ``_bench_*.py``."""

from __future__ import annotations

from autotune_rlm.cli._app import new_app
from autotune_rlm.cli._bench_kernels import kernels
from autotune_rlm.cli._bench_nas import nas
from autotune_rlm.cli._bench_optuna import optuna

app = new_app(no_args_is_help=True)
app.command("kernels")(kernels)
app.command("nas")(nas)
app.command("optuna")(optuna)


@app.callback()
def _main() -> None:
    pass
