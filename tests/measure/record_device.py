"""Stands in for the device's process of a recorder: one file of instructions decides what happens."""

import json
import os
import signal
import time
from pathlib import Path

_init = {}


def setup(init):
    _init.update(init)


def serve(request):
    script = json.loads(Path(os.environ["RECORD_SCRIPT"]).read_text())
    with open(os.environ["RECORD_CALLS"], "a") as calls:
        calls.write(json.dumps(request) + "\n")
    measurements = []
    for index in request["problems"]:
        what = script.get(str(index), "ok")
        if what == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if what == "hang":
            time.sleep(600)
        if what == "poison":
            measurements.append({"status": "runtime_error", "reason": "an illegal memory access"})
            return {"measurements": measurements, "busy_s": 0.0, "poisoned": True}
        value = 1.0 + index
        measurements.append({"status": "ok", "value": value, "samples": [value] * 8})
    return {"measurements": measurements, "busy_s": 0.01, "poisoned": False}
