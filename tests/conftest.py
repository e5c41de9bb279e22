"""What holds for the whole suite."""

import os

import pytest
from hypothesis import settings

MOST_PROCESSES = 20

# The same examples in every run; HYPOTHESIS_SEARCH=1 looks for new ones.
settings.register_profile("same", derandomize=True)
if not os.environ.get("HYPOTHESIS_SEARCH"):
    settings.load_profile("same")


def pytest_collection_modifyitems(items):
    """Tests that start other processes are slow: there are few, and it is said which."""
    marked = [item for item in items if item.get_closest_marker("processes")]
    if len(marked) > MOST_PROCESSES:
        raise pytest.UsageError(f"{len(marked)} tests are marked 'processes', at most {MOST_PROCESSES} are wanted")
    for item in marked:  # one at a time: each of them has all cores to itself but one
        item.add_marker(pytest.mark.xdist_group("processes"))
