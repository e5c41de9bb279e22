"""Generated programs, judged by running them: unit tests, whole programs with input and output, single functions.

The program is the last Python block between fences of the reply, or all of the reply. It runs in the sandbox
(`guerdon.sandbox`), and what it earns is decided outside of the process that it runs in: of a call, plain data
comes back; tests that are code run in a process of their own; expected outputs never enter the sandbox. Where
there is no sandbox, scoring raises `SandboxUnavailable` before any work. A row whose tests cannot be used
abstains; a program that cannot be run has failed them.

`rarity` weighs tests by how few of a group pass them. Tests that a model writes are judged by the wrong programs that
they kill; a `PassMatrix` of programs and tests is under both.
"""

from guerdon.rewards.code.calls import call_tests
from guerdon.rewards.code.dense import rarity, reported, reported_turns
from guerdon.rewards.code.matrix import PassMatrix, rarity_weights
from guerdon.rewards.code.streams import stdin_tests
from guerdon.rewards.code.suites import (
    SuiteQuality,
    Turnaround,
    benchmark_quality,
    curve_area,
    detection_estimate,
    effective_tests,
    killing_tests,
    quality_curve,
    suite_quality,
    turnarounds,
)
from guerdon.rewards.code.units import humaneval, unit_tests
from guerdon.rewards.code.writing import analysis_prompt, detection, difference_prompt, written_tests

__all__ = [
    "PassMatrix",
    "SuiteQuality",
    "Turnaround",
    "analysis_prompt",
    "benchmark_quality",
    "call_tests",
    "curve_area",
    "detection",
    "detection_estimate",
    "difference_prompt",
    "effective_tests",
    "humaneval",
    "killing_tests",
    "quality_curve",
    "rarity",
    "rarity_weights",
    "reported",
    "reported_turns",
    "stdin_tests",
    "suite_quality",
    "turnarounds",
    "unit_tests",
    "written_tests",
]
