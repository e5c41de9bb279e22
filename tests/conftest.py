"""What holds for the whole suite."""

import pytest

MOST_PROCESSES = 20


def pytest_collection_modifyitems(items):
    """Tests that start other processes are slow: there are few, and it is said which."""
    marked = [item for item in items if item.get_closest_marker("processes")]
    if len(marked) > MOST_PROCESSES:
        raise pytest.UsageError(f"{len(marked)} tests are marked 'processes', at most {MOST_PROCESSES} are wanted")
    for item in marked:  # one at a time: each of them has all cores to itself but one
        item.add_marker(pytest.mark.xdist_group("processes"))
