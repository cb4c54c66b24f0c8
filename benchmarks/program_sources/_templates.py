"""What stands around a solution in each language; capitals are put in by ``_mains``."""

from __future__ import annotations

__all__ = ["CPP", "CSHARP", "GO", "JAVA", "JAVASCRIPT", "PHP", "PYTHON", "RUST"]

ROUNDS = 5

CPP = r"""#include <bits/stdc++.h>
#include <malloc.h>
#include <unistd.h>
using namespace std;
static long now, peak;
void *operator new(size_t size) {
    void *block = malloc(size);
    now += malloc_usable_size(block);
    if (now > peak) peak = now;
    return block;
}
void operator delete(void *block) noexcept { now -= block ? malloc_usable_size(block) : 0; free(block); }
void operator delete(void *block, size_t) noexcept { operator delete(block); }
SOLUTION
static double clock_now() {
    return chrono::duration<double, milli>(chrono::steady_clock::now().time_since_epoch()).count();
}
static double all_bytes, all_ms;
static int cases;
template <class Run> void each(Run run) {
    double least = 1e30; long bytes = 0;
    for (int i = 0; i <= ROUNDS; i++) {
        auto [taken, ms] = run();
        if (i) least = min(least, ms);
        bytes = taken;
    }
    all_bytes += bytes; all_ms += least; cases++;
}
int main() {
CASES
    dprintf(atoi(getenv("AUTOTUNE_RLM_REPORT_FD")), "call_bytes %.1f\ncall_ms %.7f\n", all_bytes / cases,
            all_ms / cases);
}
""".replace("ROUNDS", str(ROUNDS))

JAVA = """import java.math.*;
import java.util.*;
import java.util.function.*;
import java.util.stream.*;
SOLUTION
class Main {
    static com.sun.management.ThreadMXBean bean =
        (com.sun.management.ThreadMXBean) java.lang.management.ManagementFactory.getThreadMXBean();
    static long self = Thread.currentThread().getId();
    static long lastBytes, lastNs;
    static long bytes() { return bean.getThreadAllocatedBytes(self); }
    static void taken(long bytes, long ns) { lastBytes = bytes; lastNs = ns; }
METHODS
    public static void main(String[] words) throws Exception {
        Runnable[] cases = {RUNS};
        double allBytes = 0, allMs = 0;
        long zero = bytes(); zero = bytes(); zero = bytes() - zero;
        for (Runnable one : cases) {
            long least = Long.MAX_VALUE;
            for (int i = 0; i <= ROUNDS; i++) { one.run(); if (i > 0) least = Math.min(least, lastNs); }
            allBytes += lastBytes; allMs += least / 1e6;
        }
        String place = "/proc/self/fd/" + System.getenv("AUTOTUNE_RLM_REPORT_FD");
        try (java.io.FileOutputStream out = new java.io.FileOutputStream(place, true)) {
            out.write(String.format("call_bytes %.1f%ncall_ms %.7f%n", allBytes / cases.length,
                allMs / cases.length).getBytes());
        }
    }
}
""".replace("ROUNDS", str(ROUNDS))

GO = """package main

IMPORTS
type ordered interface { ~int | ~int64 | ~int32 | ~uint | ~uint8 | ~float64 | ~string }
SHIMS
SOLUTION
var kept interface{}
var allBytes, allMs float64
var cases int

func taken() uint64 {
	var state runtime.MemStats
	runtime.ReadMemStats(&state)
	return state.TotalAlloc
}

func each(run func() (uint64, int64)) {
	least := int64(1) << 60
	var bytes uint64
	for i := 0; i <= ROUNDS; i++ {
		b, ns := run()
		if i > 0 && ns < least { least = ns }
		bytes = b
	}
	allBytes += float64(bytes)
	allMs += float64(least) / 1e6
	cases++
}

func main() {
	debug.SetGCPercent(-1)
CASES
	fd, _ := strconv.Atoi(os.Getenv("AUTOTUNE_RLM_REPORT_FD"))
	out := os.NewFile(uintptr(fd), "report")
	fmt.Fprintf(out, "call_bytes %.1f\\ncall_ms %.7f\\n", allBytes/float64(cases), allMs/float64(cases))
}
""".replace("ROUNDS", str(ROUNDS))

RUST = """#![allow(warnings)]
use std::collections::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
static NOW: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);
struct Counting;
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size() as i64, Relaxed) + layout.size() as i64;
        PEAK.fetch_max(now, Relaxed);
        System.alloc(layout)
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() as i64, Relaxed);
        System.dealloc(block, layout)
    }
}
#[global_allocator]
static ALLOCATOR: Counting = Counting;
struct Solution;
mod shadow { }
SOLUTION
fn each(sums: &mut (f64, f64, f64), run: &dyn Fn() -> (i64, u128)) {
    let mut least = u128::MAX;
    let mut bytes = 0;
    for i in 0..=ROUNDS {
        let (b, ns) = run();
        if i > 0 && ns < least { least = ns; }
        bytes = b;
    }
    sums.0 += bytes as f64; sums.1 += least as f64 / 1e6; sums.2 += 1.0;
}
fn main() {
    use std::io::Write;
    let mut sums = (0.0, 0.0, 0.0);
CASES
    let place = format!("/proc/self/fd/{}", std::env::var("AUTOTUNE_RLM_REPORT_FD").unwrap());
    let mut out = std::fs::OpenOptions::new().append(true).open(place).unwrap();
    write!(out, "call_bytes {:.1}\\ncall_ms {:.7}\\n", sums.0 / sums.2, sums.1 / sums.2).unwrap();
}
""".replace("ROUNDS", str(ROUNDS)).replace("mod shadow { }\n", "")

JAVASCRIPT = """
;(function () {
    require("v8").setFlagsFromString("--expose_gc");
    const collect = require("vm").runInNewContext("gc");
    let allBytes = 0, allMs = 0, cases = 0;
    function taken() { return process.memoryUsage().heapUsed; }
    function once(makes) {
        const given = makes();
        const before = taken(), start = process.hrtime();
        const result = NAME.apply(null, given);
        const time = process.hrtime(start), after = taken();
        return [after - before, 1e3 * time[0] + time[1] / 1e6, result];
    }
    function each(makes) {
        let least = 1e30, bytes = 1e30;
        collect();
        for (let i = 0; i <= ROUNDS; i++) {
            const [b, ms] = once(makes);
            if (i) { least = Math.min(least, ms); bytes = Math.min(bytes, b); }
        }
        allBytes += Math.max(bytes, 0); allMs += least; cases++;
    }
CASES
    require("fs").writeSync(parseInt(process.env.AUTOTUNE_RLM_REPORT_FD),
        "call_bytes " + allBytes / cases + "\\ncall_ms " + allMs / cases + "\\n");
})();
""".replace("ROUNDS", str(ROUNDS))

CSHARP = """using System;
using System.Collections;
using System.Collections.Generic;
using System.Linq;
using System.Text;
SOLUTION
class Program {
    static object kept;
    static Func<long> bytes = (Func<long>) Delegate.CreateDelegate(typeof(Func<long>),
        typeof(GC).GetMethod("GetAllocatedBytesForCurrentThread"));
    static double allBytes, allMs;
    static int cases;
    static void Each(Func<Tuple<long, TimeSpan>> run) {
        double least = 1e30, bytes = 1e30;
        for (int i = 0; i <= ROUNDS; i++) {
            var found = run();
            if (i == 0) continue;
            least = Math.Min(least, found.Item2.TotalMilliseconds);
            if (found.Item1 >= 0) bytes = Math.Min(bytes, found.Item1);
        }
        allBytes += bytes < 1e30 ? bytes : 0; allMs += least; cases++;
    }
    static void Main() {
CASES
        var place = "/proc/self/fd/" + Environment.GetEnvironmentVariable("AUTOTUNE_RLM_REPORT_FD");
        System.IO.File.AppendAllText(place, "call_bytes " + allBytes / cases + "\\ncall_ms " + allMs / cases + "\\n");
    }
}
""".replace("ROUNDS", str(ROUNDS))

PHP = """
$all_bytes = 0; $all_ms = 0; $cases = 0;
function each($makes) {
    global $all_bytes, $all_ms, $cases;
    $least = 1e30; $bytes = 0;
    for ($i = 0; $i <= ROUNDS; $i++) {
        $given = $makes(); $one = new Solution();
        memory_reset_peak_usage(); $before = memory_get_usage(); $start = hrtime(true);
        $result = $one->NAME(...$given);
        $ms = (hrtime(true) - $start) / 1e6; $bytes = memory_get_peak_usage() - $before;
        if ($i) $least = min($least, $ms);
        unset($result);
    }
    $all_bytes += $bytes; $all_ms += $least; $cases++;
}
CASES
file_put_contents("php://fd/" . getenv("AUTOTUNE_RLM_REPORT_FD"),
    "call_bytes " . $all_bytes / $cases . "\\ncall_ms " . $all_ms / $cases . "\\n");
""".replace("ROUNDS", str(ROUNDS))

PYTHON = """from __future__ import annotations
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from string import *
from typing import *
import heapq, math, re, sys, bisect, itertools, functools, collections, random, string

"""
