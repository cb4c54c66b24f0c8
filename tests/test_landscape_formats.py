"""Recorded landscapes as other tuners write them: CSV, Kernel Tuner, T4 and KTT."""

import gzip
import json
from xml.etree import ElementTree

import pytest
from landscape_support import landscape

from autotune_rlm.devices import lookup
from autotune_rlm.landscapes import read_landscapes, write_landscapes
from autotune_rlm.types import Device, Measurement, Status, Task

OK = Measurement(status="ok", value=1.5)


HEADER = "landscape,kernel,language,device,problem,config,status,time_ms,compile_s\n"


def csv_file(tmp_path, text):
    path = tmp_path / "x.csv"
    path.write_text(text)
    return path


class TestCsv:
    def test_unknown_names_and_extra_columns(self, tmp_path):
        path = csv_file(
            tmp_path,
            HEADER.strip() + ",registers,who\n"
            'x,kk,triton,Some GPU,"{""n"":3}","{""FOO"":1}",ok,2.5,0.5,32,me\n'
            'x,kk,triton,Some GPU,"{""n"":3}","{""FOO"":2}",failed,,,,\n',
        )
        (found,) = read_landscapes(path)
        assert found.task == Task(kernel="kk", device=Device(name="Some GPU"), problem={"n": 3})
        assert found.measurements[0].facts == {"registers": 32, "who": "me"}
        assert found.measurements[0].compile_s == 0.5
        assert found.measurements[1].status is Status.RUNTIME_ERROR

    def test_known_device_has_its_figures(self, tmp_path):
        path = csv_file(tmp_path, HEADER + "x,k,cuda,NVIDIA H100,{},{},ok,1,\n")
        assert read_landscapes(path)[0].task.device.sms == 132

    def test_rows_of_one_landscape_may_be_apart(self, tmp_path):
        rows = [f'{i},k,cuda,d,{{}},"{{""B"":{j}}}",ok,{j},\n' for j in (1, 2) for i in "ab"]
        found = read_landscapes(csv_file(tmp_path, HEADER + "".join(rows)))
        assert [(x.id, x.values.tolist()) for x in found] == [("a", [1, 2]), ("b", [1, 2])]

    @pytest.mark.parametrize(
        ("text", "line", "message"),
        [
            ("", 1, "header"),
            ("kernel,device,config\n", 1, "missing column time_ms"),
            ("device,time_ms\n", 1, "missing column kernel, config"),
            (HEADER + "x,k,cuda,d,{},{},ok,1\n", 2, "8 fields where the header has 9"),
            (HEADER + "x,k,cuda,d,{},{},ok,fast,\n", 2, "time_ms must be a number"),
            (HEADER + "x,k,cuda,d,{},{},ok,inf,\n", 2, "must be finite"),
            (HEADER + "x,k,cuda,d,{},{},ok,,\n", 2, "got an empty field"),
            (HEADER + "x,k,cuda,d,{},{},broken,,\n", 2, "status must be one of"),
            (HEADER + "x,k,cuda,d,{},[1],ok,1,\n", 2, "config must be a JSON object"),
            (HEADER + 'x,k,cuda,d,{},"{""a"":NaN}",ok,1,\n', 2, "NaN"),
            (HEADER + "x,k,cuda,d,oops,{},ok,1,\n", 2, "problem must be a JSON object"),
            (HEADER + "x,,cuda,d,{},{},ok,1,\n", 2, "must not be empty"),
            (HEADER + "x,k,cuda,d,{},{},ok,1,\nx,q,cuda,d,{},{},ok,1,\n", 3, "another kernel"),
        ],
    )
    def test_malformed(self, tmp_path, text, line, message):
        path = csv_file(tmp_path, text)
        with pytest.raises(ValueError, match=message) as error:
            read_landscapes(path)
        assert str(error.value).startswith(f"{path}: line {line}: ")

    def test_not_utf8_and_damaged_gzip(self, tmp_path):
        path = tmp_path / "x.csv"
        path.write_bytes(HEADER.encode() + b"\xff\xfe\n")
        with pytest.raises(ValueError, match="line 2: not UTF-8"):
            read_landscapes(path)
        path.write_bytes(gzip.compress(HEADER.encode() * 99)[:-20])
        with pytest.raises(ValueError, match="damaged gzip"):
            read_landscapes(path)


def kernel_tuner_text(entries):
    head = {
        "device_name": "NVIDIA A100-PCIE-40GB",
        "kernel_name": "conv",
        "problem_size": [4096, 4096],
        "tune_params_keys": ["bx", "tile"],
        "tune_params": {"bx": [16, 32], "tile": [1, 2]},
        "objective": "time",
    }
    start = "{\n" + "".join(f'"{k}": {json.dumps(v)},\n' for k, v in head.items())
    return start + '"cache": {\n' + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in entries)


def entry(bx, tile, time, **more):
    fields = {"bx": bx, "tile": tile, "time": time, "compile_time": 918.6, **more}
    return f"{bx},{tile}", fields | {"timestamp": "2026-01-02 03:04:05"}


ENTRIES = [
    entry(16, 1, 3.875, times=[3.9, 3.85], benchmark_time=100.0, **{"GFLOP/s": 1948.1}),
    entry(16, 2, "CompilationFailedConfig"),
    entry(32, 1, 2.5),
]


class TestKernelTuner:
    @pytest.mark.parametrize(
        ("end", "kept"), [("}\n}", 3), ("", 3), (",\n", 3), ("}", 3), ('\n, "32,2": {"bx": 3', 3)]
    )
    def test_open_and_closed(self, tmp_path, end, kept):
        path = tmp_path / "conv.json"
        path.write_text(kernel_tuner_text(ENTRIES) + end)
        (found,) = read_landscapes(path)
        assert len(found) == kept
        assert found.task.device == lookup("A100")
        assert (found.task.kernel, found.task.problem) == ("conv", {"size": [4096, 4096]})
        first, second, _ = found.measurements
        assert first.value == 3.875
        assert first.samples == (3.9, 3.85)
        assert first.compile_s == pytest.approx(0.9186)
        assert first.cost_s == pytest.approx(1.0186)
        assert first.facts == {"GFLOP/s": 1948.1}
        assert second.status is Status.COMPILE_ERROR

    @pytest.mark.parametrize(
        ("time", "status"),
        [
            ("InvalidConfig", Status.OUT_OF_RESOURCES),
            ("RuntimeFailedConfig", Status.RUNTIME_ERROR),
            (1e20, Status.RUNTIME_ERROR),
            (float("nan"), Status.RUNTIME_ERROR),
        ],
    )
    def test_failures(self, tmp_path, time, status):
        path = tmp_path / "c.json"
        path.write_text(kernel_tuner_text([entry(16, 1, time)]) + "}\n}")
        assert read_landscapes(path)[0].measurements[0].status is status

    def test_malformed(self, tmp_path):
        path = tmp_path / "c.json"
        path.write_text(kernel_tuner_text([*ENTRIES, ("x", {"bx": 1})]) + "}\n}")
        with pytest.raises(ValueError, match=r"c\.json: line 12: entry 'x': parameter 'tile'"):
            read_landscapes(path)
        path.write_text('{\n"cache": {\n broken\n broken')
        with pytest.raises(ValueError, match=r"c\.json: line 3: not a Kernel Tuner cache"):
            read_landscapes(path)

    def test_ends_as_kernel_tuner_expects(self, tmp_path):
        path = tmp_path / "c.json"
        write_landscapes(path, [landscape([1.0, None])], "kernel-tuner")
        text = path.read_text()
        assert text[-3:] == "}\n}"
        data = json.loads(text)
        assert list(data)[-1] == "cache"
        assert data["cache"]["2"]["time"] == "RuntimeFailedConfig"


class TestT4:
    def result(self, **changes):
        return {
            "configuration": {"bx": 16},
            "times": {"compilation": 660.0, "benchmark": 340.0, "runtimes": [12.0, 13.0]},
            "invalidity": "correct",
            "correctness": 1,
            "measurements": [
                {"name": "time", "value": 12.5, "unit": "ms"},
                {"name": "GFLOP/s", "value": 615.6, "unit": ""},
            ],
            "objectives": ["time"],
            **changes,
        }

    def read(self, tmp_path, *results, **top):
        path = tmp_path / "conv" / "A100_T4.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"results": list(results), "schema_version": "1.0.0", **top}))
        return read_landscapes(path)[0]

    def test_kernel_tuner_writes_milliseconds(self, tmp_path):
        found = self.read(tmp_path, self.result())
        assert (found.task.kernel, found.task.device) == ("conv", lookup("A100"))
        (m,) = found.measurements
        assert (m.value, m.samples, m.facts) == (12.5, (12.0, 13.0), {"GFLOP/s": 615.6})
        assert m.compile_s == pytest.approx(0.66)
        assert m.cost_s == pytest.approx(1.0)

    def test_unit_of_the_metadata(self, tmp_path):
        found = self.read(
            tmp_path,
            self.result(measurements=[], times={"compilation_time": 7, "runtimes": [2000.0]}),
            metadata={"timeunit": "microseconds", "device": "NVIDIA H100"},
        )
        assert found.measurements[0].value == pytest.approx(2.0)
        assert found.measurements[0].compile_s == pytest.approx(7e-6)
        assert found.task.device.arch == "hopper"

    @pytest.mark.parametrize(
        ("invalidity", "status"),
        [
            ("compile", "compile_error"),
            ("runtime", "runtime_error"),
            ("timeout", "timeout"),
            ("correctness", "wrong_result"),
            ("constraints", "out_of_resources"),
        ],
    )
    def test_failures(self, tmp_path, invalidity, status):
        found = self.read(tmp_path, self.result(invalidity=invalidity))
        assert found.measurements[0].status.value == status

    def test_malformed(self, tmp_path):
        with pytest.raises(ValueError, match=r"line 1: results\[1\]: invalidity must be one of"):
            self.read(tmp_path, self.result(), self.result(invalidity="odd"))
        path = tmp_path / "x.json"
        path.write_text('{"results": [}')
        with pytest.raises(ValueError, match=r"x\.json: line 1: not JSON"):
            read_landscapes(path)


KTT_PAIRS = [
    ("WORK_GROUP_SIZE_X", "UnsignedInt", 64),
    ("MODE", "String", "fast"),
    ("F", "Double", 0.5),
]


def ktt_result(status="Ok", **changes):
    """A result as KTT 2 saves it, times in microseconds."""
    return {
        "KernelName": "sum",
        "Status": status,
        "TotalDuration": 109.5 if status == "Ok" else 1.7976931348623157e308,
        "TotalOverhead": 2000.0,
        "CompilationOverhead": 1500.0,
        "Configuration": [{"Name": n, "ValueType": t, "Value": v} for n, t, v in KTT_PAIRS],
        "ComputationResults": [
            {
                "KernelFunction": "sum",
                "Duration": 109.5,
                "CompilationData": {"RegistersCount": 20, "LocalMemorySize": 512},
                "ProfilingData": {"Counters": [{"Name": "ipc", "Type": "Double", "Value": 1.5}]},
            }
        ],
        **changes,
    }


KTT_METADATA = {
    "ComputeApi": "OpenCL",
    "Device": "NVIDIA H100",
    "KttVersion": "2.2.0",
    "TimeUnit": "Microseconds",
    "Timestamp": "2026-01-02 03:04:05 UTC",
}


def ktt_json(path, results):
    path.write_text(json.dumps({"Metadata": KTT_METADATA, "Results": results}))


def ktt_xml(path, results):
    """The same as XML, where everything is an attribute."""
    root = ElementTree.Element("TuningData")
    ElementTree.SubElement(root, "Metadata", KTT_METADATA)
    parent = ElementTree.SubElement(root, "Results")
    for result in results:
        flat = {k: str(v) for k, v in result.items() if not isinstance(v, list)}
        node = ElementTree.SubElement(parent, "KernelResult", flat)
        pairs = ElementTree.SubElement(node, "Configuration")
        for pair in result["Configuration"]:
            ElementTree.SubElement(pairs, "Pair", {k: str(v) for k, v in pair.items()})
        runs = ElementTree.SubElement(node, "ComputationResults")
        for run in result["ComputationResults"]:
            flat = {k: str(v) for k, v in run.items() if not isinstance(v, dict)}
            one = ElementTree.SubElement(runs, "ComputationResult", flat)
            said = {k: str(v) for k, v in run["CompilationData"].items()}
            ElementTree.SubElement(one, "CompilationData", said)
            profile = ElementTree.SubElement(one, "ProfilingData", RemainingProfilingRuns="0")
            counters = ElementTree.SubElement(profile, "Counters")
            for counter in run["ProfilingData"]["Counters"]:
                values = {k: str(v) for k, v in counter.items()}
                ElementTree.SubElement(counters, "Counter", values)
    ElementTree.ElementTree(root).write(path)


class TestKtt:
    @pytest.mark.parametrize(("name", "write"), [("k.json", ktt_json), ("k.xml", ktt_xml)])
    def test_version_2(self, tmp_path, name, write):
        write(tmp_path / name, [ktt_result(), ktt_result("CompilationFailed")])
        (found,) = read_landscapes(tmp_path / name)
        assert found.task == Task(kernel="sum", device=lookup("NVIDIA H100"), language="opencl")
        assert found.candidates[0].config == {"WORK_GROUP_SIZE_X": 64, "MODE": "fast", "F": 0.5}
        good, bad = found.measurements
        assert good.value == pytest.approx(0.1095)  # milliseconds
        assert good.compile_s == pytest.approx(1.5e-3)
        assert good.cost_s == pytest.approx(2.1095e-3)
        assert good.facts == {"registers": 20, "shared_bytes": 512, "ipc": 1.5}
        assert (bad.status, bad.value) == (Status.COMPILE_ERROR, None)
        assert bad.cost_s == pytest.approx(2e-3)

    @pytest.mark.parametrize(
        ("name", "status"),
        [
            ("ComputationFailed", Status.RUNTIME_ERROR),
            ("ValidationFailed", Status.WRONG_RESULT),
            ("DeviceLimitsExceeded", Status.OUT_OF_RESOURCES),
        ],
    )
    def test_failures(self, tmp_path, name, status):
        ktt_json(tmp_path / "k.json", [ktt_result(name, ComputationResults=[])])
        assert read_landscapes(tmp_path / "k.json")[0].measurements[0].status is status

    def test_one_landscape_a_kernel(self, tmp_path):
        ktt_json(tmp_path / "k.json", [ktt_result(), ktt_result(KernelName="other")])
        assert [x.task.kernel for x in read_landscapes(tmp_path / "k.json")] == ["sum", "other"]

    def test_csv_with_failures(self, tmp_path):
        sizes = "Global size,Local size,BLOCK,KIND"
        compiled = "Maximum work-group size,Local memory size,Registers count"
        (tmp_path / "GTX 1070.csv").write_text(
            f"Kernel name,Computation duration (us),{sizes},ipc,dram__read.sum,{compiled}\n"
            "sum,2500,64,32,16,a,1.5,12,1024,0,40\n"
            "sum,1250,64,32,32,a,1.5,12,1024,0,40\n"
            "\n"
            f"Kernel name,Error message,{sizes},{compiled}\n"
            "sum,out of memory,64,32,64,b,,,\n"
        )
        (found,) = read_landscapes(tmp_path / "GTX 1070.csv")
        assert [dict(c.config) for c in found.candidates] == [
            {"BLOCK": 16, "KIND": "a"},
            {"BLOCK": 32, "KIND": "a"},
            {"BLOCK": 64, "KIND": "b"},
        ]
        assert found.values[:2].tolist() == [2.5, 1.25]
        assert found.measurements[0].facts == {
            "registers": 40,
            "shared_bytes": 0,
            "max_threads": 1024,
            "ipc": 1.5,
            "dram__read.sum": 12,
        }
        assert found.measurements[2].reason == "out of memory"
        assert "1070" in found.task.device.name

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("k.json", '{"KttVersion": "2", "Results": 1}', "a list 'Results'"),
            ("k.json", '{"KttVersion": "2", "Results": [', "line 1: not JSON"),
            ("k.json", '{"KttVersion": "2", "Results": [{"Status": "Ok"}]}', "result 1: 'Config"),
            ("k.json", '{"KttVersion": "2", "Results": [{"Status": "So"}]}', "Status must be one"),
            ("k.xml", "<TuningData>\n<Results>", "line 2: not XML"),
            ("k.xml", "<other/>", "begins with TuningData"),
            ("k.xml", '<!DOCTYPE x [<!ENTITY a "b">]><TuningData/>', "no document type"),
            ("k.csv", "Kernel name,Computation duration (us),A\nsum,1\n", "line 2: 2 fields"),
        ],
    )
    def test_malformed(self, tmp_path, name, text, message):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message) as error:
            read_landscapes(tmp_path / name, "ktt")
        assert str(error.value).startswith(str(tmp_path / name))

    def test_is_not_written(self, tmp_path):
        with pytest.raises(ValueError, match="format must be"):
            write_landscapes(tmp_path / "k.xml", [landscape([1.0])])
        with pytest.raises(ValueError, match="format must be"):
            write_landscapes(tmp_path / "k.xml", [landscape([1.0])], "ktt")
