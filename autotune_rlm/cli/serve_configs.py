"""``autotune-rlm serve-configs``: configuration files of vLLM and SGLang."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from autotune_rlm import formats
from autotune_rlm.cli._app import (
    StoreOption,
    SurrogateOption,
    fail,
    failing,
    new_app,
    new_console,
    new_table,
)
from autotune_rlm.cli._ray import DEVICE, RAY, WORKERS, open_cluster

if TYPE_CHECKING:
    from autotune_rlm.integrations.ray import Cluster
    from autotune_rlm.integrations.serving import ServingFile

app = new_app(
    no_args_is_help=True,
    help="Configuration files of vLLM and SGLang: predict them for any GPU, measure them on the one "
    "that is here, check what is there.",
)
_out = new_console(min_width=100)
_SHORT = {"BLOCK_SIZE_M": "M", "BLOCK_SIZE_N": "N", "BLOCK_SIZE_K": "K", "GROUP_SIZE_M": "group"}
_Kernel = Annotated[
    str, typer.Argument(help="fused_moe, w8a8_block_fp8_matmul or w8a8_block_int8_matmul.")
]
_Gpu = Annotated[
    str, typer.Option("--device", help='The GPU as its driver names it: "NVIDIA H200".')
]
_N = Annotated[int, typer.Option("--n", help="N of the file's name.")]
_K = Annotated[int | None, typer.Option("--k", help="K, for the block products.")]
_E = Annotated[int | None, typer.Option("--e", help="Experts on one GPU, for fused_moe.")]
_Dtype = Annotated[
    str | None, typer.Option("--dtype", help="As in the file's name, such as fp8_w8a8.")
]
_Block = Annotated[str | None, typer.Option("--block-shape", help="As in 128,128.")]
_Channel = Annotated[bool, typer.Option(help="Each channel has a scale, as in the file's name.")]
_Hidden = Annotated[
    int | None,
    typer.Option(help="The model's hidden size, for fused_moe; a guess from E where not given."),
]
_TopK = Annotated[
    int | None,
    typer.Option(help="Experts of each token, for fused_moe; a guess from E where not given."),
]
_Batches = Annotated[
    str | None, typer.Option(help="Batch sizes, as in 1,16,256; by default the servers' own.")
]
_Server = Annotated[
    str, typer.Option(help="vllm or sglang: how the file is named, and whose kernel it is for.")
]
_Out = Annotated[Path, typer.Option(help="Folder that the file is written to.")]


@app.command()
def predict(
    context: typer.Context,
    kernel: _Kernel,
    device: _Gpu,
    n: _N,
    k: _K = None,
    e: _E = None,
    dtype: _Dtype = None,
    block_shape: _Block = None,
    per_channel_quant: _Channel = False,
    hidden_size: _Hidden = None,
    top_k: _TopK = None,
    batches: _Batches = None,
    server: Annotated[str, typer.Option(help="vllm, sglang or aiter: whose file it is.")] = "vllm",
    out: _Out = Path("."),
    surrogate: SurrogateOption = None,
) -> None:
    """Write the file for a GPU that need not be here, from the model's predictions.

    For each batch size the whole space of the server's own tuner (1,280 or 1,920 configurations) is
    ranked. Nothing is measured: measure the file's choices before you rely on them. Entries of other
    batch sizes that the file has stay.
    """
    from autotune_rlm.integrations import serving

    table = _table("tokens", "ms", "from", "to")
    found: dict[int, Mapping[str, Any]] = {}
    reasons: dict[str, None] = {}
    with failing(ValueError, OSError):
        sizes = _sizes(batches) if batches or server != "aiter" else serving.M_BOUNDS
        file = _file(context, device)
        if server == "aiter":
            serving.AiterFile.of(file.with_configs({1: {}}))
        else:
            file = _with_what_is_there(file, out, server)
        entries = serving.predict(file, batches=sizes, surrogate=_surrogate(surrogate))
        with _out.status(f"ranking {len(sizes)} batch sizes") as status:
            for entry in entries:
                found[entry.batch] = entry.config
                status.update(f"ranked {len(found)} of {len(sizes)} batch sizes")
                reasons.update(dict.fromkeys(entry.unfamiliar))
                times = entry.median, entry.low, entry.high
                _row(table, entry.batch, entry.config, *(f"{ms:.3g}" for ms in times))
        if server == "aiter":
            path = serving.AiterFile.of(file.with_configs(found)).write(out)
        else:
            file.add(found, out, server=server)
    _out.print(table)
    _reasons(reasons)
    if server == "aiter":
        _out.print(f"wrote {path}")
        _out.print("AITER takes it from its own folder aiter/ops/triton/configs")
    else:
        _written(file, out, server)


@app.command()
def measure(
    context: typer.Context,
    kernel: _Kernel,
    n: _N,
    k: _K = None,
    e: _E = None,
    dtype: _Dtype = None,
    block_shape: _Block = None,
    per_channel_quant: _Channel = False,
    hidden_size: _Hidden = None,
    top_k: _TopK = None,
    batches: _Batches = None,
    budget: Annotated[
        int, typer.Option(min=1, help="Configurations to measure for each batch size.")
    ] = 24,
    server: _Server = "vllm",
    out: _Out = Path("."),
    store: StoreOption = None,
    surrogate: SurrogateOption = None,
    interpreter: Annotated[
        bool, typer.Option("--interpreter", help="Run small sizes on Triton's interpreter.")
    ] = False,
    ray: Annotated[str | None, RAY] = None,
    ray_workers: Annotated[int | None, WORKERS] = None,
    device: Annotated[str | None, DEVICE] = None,
) -> None:
    """Measure the model's best few of each batch size with the installed server's own kernel.

    The file is written after each batch size and every measurement is kept, so that the same command
    goes on where it was ended. Entries of other batch sizes that the file has stay.
    """
    from autotune_rlm.integrations import serving
    from autotune_rlm.integrations.triton.resources import open_store
    from autotune_rlm.search.tuner import TuningError

    table = _table("tokens", "ms", "default ms", "measured", "known")
    done: list[serving.Measured] = []
    try:
        sizes = _sizes(batches)
        with open_cluster(ray, workers=ray_workers, device=device, cpus=interpreter) as cluster:
            file = _file(context, _device_name(device, cluster, interpreted=interpreter))
            file = _with_what_is_there(file, out, server)
            near = serving.nearest(file, server=server)
            if near is not None:
                _out.print(f"tried first: {near.reason}")
            found = serving.measure(
                file,
                server=server,
                batches=sizes,
                budget=budget,
                first=[] if near is None else [near.file],
                store=open_store(store),
                surrogate=None if surrogate is None else _surrogate(surrogate),
                interpreted=interpreter,
                device=None if cluster is None else cluster.device,
                fleet=None if cluster is None else cluster.measurer,
            )
            for entry in found:
                done.append(entry)
                default = "failed" if entry.default_ms is None else f"{entry.default_ms:.4g}"
                counts = str(entry.measured), str(entry.reused)
                _row(table, entry.batch, entry.config, f"{entry.time_ms:.4g}", default, *counts)
                file.add({entry.batch: entry.config}, out, server=server)
                if len(sizes) > 1:
                    _out.print(f"{len(done)} of {len(sizes)} batch sizes")
    except (ValueError, OSError, ImportError, LookupError, TuningError) as error:
        fail(error, 1 if done else 2)
    _out.print(table)
    seconds, saved = sum(d.seconds for d in done), sum(d.saved_s for d in done)
    text = f"{sum(d.measured for d in done)} configurations measured in {formats.seconds(seconds)}"
    if saved >= 1.0:
        text += f"; measuring all would have taken about {formats.seconds(saved)} more"
    _out.print(text)
    _written(file, out, server)


@app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of vLLM or SGLang.")
    ],
    device: Annotated[
        str | None,
        typer.Option(help="The GPU that they are used on; by default the one they name."),
    ] = None,
    surrogate: SurrogateOption = None,
) -> None:
    """Say which entries of files look slow, and what the model would take."""
    from autotune_rlm import devices
    from autotune_rlm.integrations import serving

    model = _surrogate(surrogate)
    here = devices.lookup(device) if device else None
    for path in files:
        table = _table("tokens", "expected to be slower by")
        reasons: dict[str, None] = {}
        with failing(ValueError, OSError):
            file = serving.ServingFile.read(path)
            for doubt in serving.check(file, device=here, surrogate=model):
                reasons.update(dict.fromkeys(doubt.unfamiliar))
                _row(table, doubt.batch, doubt.config, f"{100 * doubt.slower:.0f} %")
                _row(table, "better:", doubt.better, "")
        _out.print(f"{path.name}: {table.row_count // 2} of {len(file.configs)} entries look slow")
        if table.row_count:
            _out.print(table)
        _reasons(reasons)


@app.command()
def nearest(
    context: typer.Context,
    kernel: _Kernel,
    device: _Gpu,
    n: _N,
    k: _K = None,
    e: _E = None,
    dtype: _Dtype = None,
    block_shape: _Block = None,
    per_channel_quant: _Channel = False,
    server: _Server = "vllm",
    configs: Annotated[
        list[Path] | None,
        typer.Option(help="Folders of files; by default those of the installed server."),
    ] = None,
    out: _Out = Path("."),
) -> None:
    """Write the file of the nearest GPU and shape that has one, under this GPU's name."""
    from autotune_rlm.integrations import serving

    with failing(ValueError, OSError):
        file = _file(context, device)
        for folder in configs or ():
            if not folder.is_dir():
                raise ValueError(f"no folder at {folder}; --configs takes folders of files")
        found = serving.nearest(file, server=server, folders=configs)
        if found is None:
            raise ValueError(
                f"no file of {kernel} to go by: give folders with --configs, or predict the file"
            )
        file.with_configs(found.file.configs).write(out, server=server)
    _out.print(found.reason)
    _written(file, out, server)


def _file(context: typer.Context, device: str) -> ServingFile:
    """The file that the options mean; its GPU by the driver's name, which is said where it differs."""
    from autotune_rlm.integrations import serving

    name = serving.driver_name(device)
    if name != device:
        _out.print(f"{device} is called {name!r} by its driver")
    given = context.params
    same = ("kernel", "dtype", "per_channel_quant", "hidden_size", "top_k")
    return serving.ServingFile(
        device_name=name,
        **{size.upper(): given[size] for size in ("e", "n", "k")},
        block_shape=_block(given["block_shape"]),
        **{option: given[option] for option in same if option in given},
    )


def _with_what_is_there(file: ServingFile, out: Path, server: str) -> ServingFile:
    """The file with the entries that it has already, once its folder is known to take one."""
    path = file.path(out, server=server)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"nothing can be written to {path.parent}; give another --out")
    if not path.exists():
        return file
    before = file.read(path)
    return dataclasses.replace(file, configs=before.configs, extra=before.extra)


def _block(text: str | None) -> tuple[int, int] | None:
    block = _numbers("--block-shape", "128,128", text) if text else []
    if len(block) not in (0, 2):
        raise ValueError(f"--block-shape must be two numbers as in 128,128, got {text!r}")
    return (block[0], block[1]) if block else None


def _sizes(text: str | None) -> Sequence[int]:
    from autotune_rlm.integrations.serving import BATCHES

    return _numbers("--batches", "1,16,256", text) if text else BATCHES


def _numbers(option: str, example: str, text: str) -> list[int]:
    try:
        return [int(size) for size in text.split(",")]
    except ValueError:
        raise ValueError(f"{option} must be numbers as in {example}, got {text!r}") from None


def _device_name(asked: str | None, cluster: Cluster | None, *, interpreted: bool) -> str:
    """The name of the GPU that is here, as its driver calls it, or of the cluster's."""
    if interpreted:
        return "Triton interpreter"
    if cluster is not None:
        return asked or cluster.device.name
    import torch

    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    raise ValueError(
        "there is no GPU here to measure on; autotune-rlm serve-configs predict needs none, --ray "
        "measures on a cluster, and --interpreter runs small sizes on Triton's interpreter"
    )


def _surrogate(name: str | None) -> Any:
    from autotune_rlm.surrogate import load_surrogate

    return load_surrogate(name)


def _written(file: ServingFile, out: Path, server: str) -> None:
    """Where the file is, and how the server finds it."""
    from autotune_rlm.integrations.serving import how_to_use

    _out.print(f"wrote {file.path(out, server=server)}")
    _out.print(how_to_use(file, out, server=server))


def _table(first: str, *last: str) -> Table:
    return new_table(right=(first, *_SHORT.values(), "warps", "stages", *last))


def _row(table: Table, first: Any, config: Mapping[str, Any], *last: str) -> None:
    names = (*_SHORT, "num_warps", "num_stages")
    table.add_row(str(first), *(str(config.get(name, "")) for name in names), *last)


def _reasons(reasons: dict[str, None]) -> None:
    for reason in reasons:
        _out.print(f"unfamiliar: {reason}")
