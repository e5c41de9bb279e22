"""The tests of this folder import benchmarks, and the worlds of the lab, by name."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path += [str(HERE.parents[2] / "benchmarks"), str(HERE.parents[1] / "lab")]
