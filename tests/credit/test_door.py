import subprocess
import sys

import pytest

import guerdon.credit
import guerdon.objectives


@pytest.mark.processes
def test_the_doors_import_torch_only_when_something_is_taken_through_them():
    code = "import sys, guerdon.credit.rank, guerdon.objectives; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize("room", [guerdon.credit, guerdon.objectives])
def test_a_door_shows_what_it_lists_and_nothing_else(room):
    assert dir(room) == sorted(room.__all__)
    assert all(getattr(room, name).__name__.endswith(name) for name in room.__all__)
    with pytest.raises(AttributeError, match="attribute absent"):
        _ = room.absent
