"""``enable`` and ``disable``: kernels that others decorated with ``triton.autotune``."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import weakref

import pytest
import torch
import triton
from triton.runtime.autotuner import Autotuner
from triton_test_support import Oracle, Quick, body, configs

import autotune_rlm
from autotune_rlm.integrations.triton import RLMAutotuner, rlm_autotune

X = torch.zeros(64)
GRID = (1,)


@pytest.fixture(autouse=True)
def _leave_it_off():
    yield
    autotune_rlm.disable()


def of_a_library(**options):
    return triton.autotune(configs=configs(), key=["n"], **options)(Quick(body))


class Cached(Autotuner):
    """A library's own autotuner that does something first and leaves the rest to Triton's."""

    seen = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.later = "set after Triton's constructor"

    def run(self, *args, **kwargs):
        self.seen += 1
        self.look_up([self.arg_names, self.keys])
        return super().run(*args, **kwargs)

    def look_up(self, key):
        """As fla's, which puts what it finds in its own files into ``cache``."""
        self.cache.get(tuple(map(tuple, key)))


def test_kernels_defined_later_are_ours(stub, oracle):
    autotune_rlm.enable(budget=3, surrogate=oracle)
    kernel = of_a_library()
    assert isinstance(kernel, RLMAutotuner)
    kernel[GRID](X, X, 64)
    assert 0 < len(stub.benchmarked) <= 3
    assert kernel.best_config.kwargs["BLOCK"] == 256


def test_kernels_of_modules_imported_before_are_ours_too(stub, oracle):
    kernel = of_a_library()
    around = triton.heuristics({"n": lambda args: 64})(kernel)
    handle = autotune_rlm.enable(budget=3, surrogate=oracle)
    assert kernel in handle.kernels
    around[GRID](X, X)
    assert 0 < len(stub.benchmarked) <= 3


def test_disable_gives_all_of_them_back(stub, oracle):
    before, theirs = of_a_library(), Autotuner.__init__
    autotune_rlm.enable(budget=3, surrogate=oracle)
    later = of_a_library()
    before[GRID](X, X, 64)
    autotune_rlm.disable()
    assert Autotuner.__init__ is theirs or Autotuner.__init__.__wrapped__ is theirs
    for kernel in (before, later):
        assert type(kernel) is Autotuner
        assert kernel.cache == {}
        stub.benchmarked.clear()
        kernel[GRID](X, X, 64)
        assert len(stub.benchmarked) == len(configs())
    assert type(of_a_library()) is Autotuner
    autotune_rlm.disable()


def test_a_key_that_triton_tuned_keeps_its_configuration(stub, oracle):
    kernel = of_a_library()
    kernel[GRID](X, X, 64)
    chosen = kernel.best_config
    stub.benchmarked.clear()
    with autotune_rlm.enable(surrogate=oracle):
        kernel[GRID](X, X, 64)
        assert kernel.best_config is chosen
        assert stub.benchmarked == []
        kernel[GRID](X, X, 128)
        assert 0 < len(stub.benchmarked) < len(configs())
    assert list(kernel.cache.values()) == [chosen]


def test_contexts_nest(stub):
    kernel = of_a_library()
    with autotune_rlm.enable(mode="predict", surrogate=Oracle()):
        with autotune_rlm.enable(mode="full", surrogate=Oracle()):
            kernel[GRID](X, X, 64)
            assert len(stub.benchmarked) == len(configs())
        stub.benchmarked.clear()
        kernel[GRID](X, X, 128)
        assert stub.benchmarked == []
        assert isinstance(kernel, RLMAutotuner)
    assert type(kernel) is Autotuner


def test_an_error_within_a_context_restores_too():
    kernel = of_a_library()
    with pytest.raises(KeyError), autotune_rlm.enable():
        raise KeyError
    assert type(kernel) is Autotuner


def test_a_subclass_of_a_library_keeps_what_it_adds(stub, oracle):
    def make():
        kernel = Quick(body)
        return Cached(kernel, kernel.arg_names, configs(), ["n"], None, None)

    before = make()
    with autotune_rlm.enable(budget=3, surrogate=oracle):
        for kernel in (before, make()):
            stub.benchmarked.clear()
            kernel[GRID](X, X, 64)
            assert isinstance(kernel, Cached)
            assert (kernel.seen, kernel.later) == (1, "set after Triton's constructor")
        assert isinstance(kernel, RLMAutotuner)
    assert type(before) is type(kernel) is Cached
    assert kernel.later == "set after Triton's constructor"


class OwnRun(Autotuner):
    """Chooses by itself and remembers in its own way."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.mine = {}

    def run(self, *args, **kwargs):
        chosen = self.mine.setdefault(len(args), self.configs[1])
        return self.fn.run(*args, **kwargs, **chosen.all_kwargs())


class OwnCache(Autotuner):
    """A cache that nobody may replace."""

    @property
    def cache(self):
        return self.__dict__.setdefault("kept", {})

    @cache.setter
    def cache(self, value):
        if value:
            raise AttributeError("the cache is mine")


class OwnBench(Autotuner):
    def _bench(self, *args, config, **kwargs):
        return [float(config.kwargs["BLOCK"])] * 3


class OwnAttributes(Autotuner):
    """Without a hash, and careful with what is assigned."""

    __hash__ = None

    def __eq__(self, other):
        raise TypeError("autotuners of this kind are not compared")

    def __setattr__(self, name, value):
        if name.startswith("_rlm"):
            raise AttributeError(name)
        super().__setattr__(name, value)


class Hidden(Autotuner):
    """Its dictionary cannot be asked for from outside of Python's own library and this file."""

    def __getattribute__(self, name):
        if name == "__dict__" and "autotune_rlm" in sys._getframe(1).f_globals["__name__"]:
            raise RuntimeError("nothing to see")
        return super().__getattribute__(name)


def made_of(kind):
    kernel = Quick(body)
    return kind(kernel, kernel.arg_names, configs(), ["n"], None, None)


@pytest.mark.parametrize("kind", [OwnRun, OwnCache, OwnBench, OwnAttributes, Hidden])
def test_a_subclass_that_tunes_in_its_own_way_is_left_alone(stub, oracle, kind):
    before, plain = made_of(kind), of_a_library()
    with autotune_rlm.enable(surrogate=oracle) as enabled:
        later = made_of(kind)
        assert type(before) is type(later) is kind
        assert isinstance(plain, RLMAutotuner)
        assert [k for k in enabled.kernels if k in (plain,)] == [plain]
        for kernel in (before, later):
            kernel[GRID](X, X, 64)
    assert oracle.asked == 0
    assert type(plain) is Autotuner


def test_a_kernel_that_hides_a_method_of_its_own_is_left_alone(stub, oracle):
    kernel = of_a_library()
    kernel.run = lambda *args, **kwargs: "mine"
    with autotune_rlm.enable(surrogate=oracle):
        assert type(kernel) is Autotuner
        assert kernel[GRID](X, X, 64) == "mine"


def test_a_replaced_method_of_triton_is_not_hidden(stub, oracle, monkeypatch):
    calls = []
    run = Autotuner.run

    def counted(self, *args, **kwargs):
        calls.append(args)
        return run(self, *args, **kwargs)

    monkeypatch.setattr(Autotuner, "run", counted)
    kernel = of_a_library()
    with autotune_rlm.enable(surrogate=oracle):
        kernel[GRID](X, X, 64)
    assert len(calls) == 1


def test_an_autotuner_that_is_not_finished_is_passed_over(stub):
    half = object.__new__(Autotuner)
    kernel = of_a_library()
    with autotune_rlm.enable():
        assert type(half) is Autotuner
        assert isinstance(kernel, RLMAutotuner)
    assert type(kernel) is Autotuner


class OwnGrid(Quick):
    """Knows its grid, as the launchers of some libraries do."""

    def run(self, *args, warmup=False, **kwargs):
        return super().run(*args, grid=(1,), warmup=warmup, **kwargs)


@pytest.mark.parametrize("mode", ["tune", "predict", "full"])
def test_a_launch_without_a_grid(stub, oracle, mode):
    kernel = triton.autotune(configs=configs(), key=["n"])(OwnGrid(body))
    with autotune_rlm.enable(mode=mode, surrogate=oracle):
        assert kernel.run(X, X, 64) == "launched"
        assert kernel.best_config.kwargs["BLOCK"] == 256


def test_everything_of_ours_is_one_attribute(stub, oracle):
    kernel = of_a_library(reset_to_zero=["y"])
    before = dict(vars(kernel))
    with autotune_rlm.enable(surrogate=oracle, budget=2):
        kernel[GRID](X, X, 64)
        added = set(vars(kernel)) - set(before)
        tritons = {"best_config", "bench_time", "configs_timings", "restore_copies"}
        assert added <= {"_rlm"} | tritons
    assert "_rlm" not in vars(kernel)
    for name, value in before.items():
        assert vars(kernel)[name] == value


def test_only_some_modules():
    with autotune_rlm.enable(only="somewhere.else"):
        assert type(of_a_library()) is Autotuner
    with autotune_rlm.enable(only=["no", body.__module__]) as enabled:
        kernel = of_a_library()
        assert kernel in enabled.kernels
    with pytest.raises(TypeError, match="only must be names"):
        autotune_rlm.enable(only=[3])


def test_what_is_already_ours_keeps_its_settings(stub, oracle):
    own = rlm_autotune(configs=configs(), key=["n"], budget=2, surrogate=oracle, store=False)
    kernel = own(Quick(body))
    with autotune_rlm.enable(mode="full"):
        assert own(Quick(body)) not in autotune_rlm.enable(mode="full").kernels
        kernel[GRID](X, X, 64)
    assert len(stub.benchmarked) == 2
    assert isinstance(kernel, RLMAutotuner)


def test_hooks_and_resets_of_the_library_still_run(stub, oracle):
    y = torch.ones(64)
    kernel = of_a_library(reset_to_zero=["y"], restore_value=["x"])
    with autotune_rlm.enable(surrogate=oracle, budget=2):
        kernel[GRID](X, y, 64)
    assert float(y.sum()) == 0.0


def test_disabled_by_the_environment_all_is_left_to_triton(stub, oracle, monkeypatch):
    monkeypatch.setenv("AUTOTUNE_RLM_DISABLE", "1")
    kernel = of_a_library()
    with autotune_rlm.enable(surrogate=oracle, budget=2):
        kernel[GRID](X, X, 64)
    assert len(stub.benchmarked) == len(configs())
    assert oracle.asked == 0


def test_kernels_are_not_kept_alive():
    autotune_rlm.enable()
    kernel = weakref.ref(of_a_library(reset_to_zero=["y"]))
    gc.collect()
    assert kernel() is None


def test_wrong_arguments_change_nothing():
    kernel = of_a_library()
    with pytest.raises(ValueError, match="mode must be one of"):
        autotune_rlm.enable(mode="fast")
    with pytest.raises(FileNotFoundError, match="no recommended configurations at"):
        autotune_rlm.enable(configs_from="/nowhere/at/all.json")
    assert type(kernel) is Autotuner


def test_importing_the_package_imports_neither_triton_nor_torch():
    code = "import sys, autotune_rlm; autotune_rlm.__dir__(); print({'torch','triton'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "set()"


PROGRAM = """
    import sys
    import triton
    from triton import autotune
    from triton.runtime.autotuner import Autotuner

    class Kernel:
        arg_names = ["x", "n", "BLOCK"]
        def fn(x, n, BLOCK): ...
        fn = staticmethod(fn)

    made = autotune(configs=[triton.Config({"BLOCK": 64})], key=["n"])(Kernel())
    print(type(made).__name__, sys.argv[1:], __name__)
    if "fail" in sys.argv:
        sys.exit(7)
"""


@pytest.mark.parametrize(
    ("environment", "made"), [({}, "RLMAutotuner"), ({"AUTOTUNE_RLM_ENABLE": "0"}, "Autotuner")]
)
def test_run_a_program(tmp_path, monkeypatch, environment, made):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    script = tmp_path / "program.py"
    script.write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "autotune_rlm", "run", "--mode", "predict", script]
    told = subprocess.run([*command, "a", "--mode", "b"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    assert told.stdout.split("\n")[0] == f"{made} ['a', '--mode', 'b'] __main__"


def test_run_a_module_and_its_exit_code(tmp_path, monkeypatch):
    (tmp_path / "some_module.py").write_text(textwrap.dedent(PROGRAM))
    command = [sys.executable, "-m", "autotune_rlm", "run", "-m", "some_module", "fail"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert told.stdout.startswith("RLMAutotuner ['fail'] __main__")
    assert told.returncode == 7


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py"], "no program at nowhere.py"),
        (["--mode", "fast", __file__], "mode must be one of"),
        (["--configs-from", "nowhere.json", __file__], "no recommended configurations"),
    ],
)
def test_run_says_what_is_wrong_before_it_begins(arguments, says):
    from typer.testing import CliRunner

    from autotune_rlm.cli import app

    told = CliRunner().invoke(app, ["run", *arguments])
    assert told.exit_code == 2
    assert says in told.output
