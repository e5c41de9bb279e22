"""How much memory a run has taken."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def peak_rss_mib() -> float:
    """The peak resident memory of this process, and of the worker processes it has now, in MiB.

    On Linux the children's peaks are added; elsewhere only this process is counted.
    """
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    peaks = [_peak_kib(pid) for pid in [str(os.getpid()), *(pid for listed in children for pid in listed)]]
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform == "darwin" else 1)
    return max(own, sum(peaks)) / 1024


def _peak_kib(pid: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((float(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")), 0.0)
