"""Each hostile program is held, none is rewarded, and what runs after it in the same sandbox is right."""

import os

import pytest
from hostile_programs import attempt, ordinary_is_right, programs

PROGRAMS = programs()


@pytest.fixture(autouse=True)
def nothing_is_left(box, descendants, ends):
    """No process but the warm interpreter, which is still the same, and no descriptor."""
    bubblewrap = box._zygote._bubblewrap.pid
    before, family, descriptors = descendants(), descendants(bubblewrap), len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    assert ends(descendants() - before)
    assert descendants(bubblewrap) == family


def test_the_collection_is_large_and_every_program_says_what_it_tries():
    assert len(PROGRAMS) >= 80
    assert {program.run for program in PROGRAMS} == {"program", "calls", "tests"}
    for program in PROGRAMS:
        assert program.source.startswith("# "), program.name
        assert program.source.partition("\n")[0].endswith("."), program.name


@pytest.mark.parametrize("hostile", [pytest.param(program, id=program.name) for program in PROGRAMS])
def test_a_hostile_program_is_held_and_the_next_one_is_right(hostile, box):
    if not hostile.runs_here:
        pytest.skip(f"the program is for {hostile.machine}")
    for _ in range(hostile.times):
        outcome = attempt(box, hostile)
        assert "ESCAPED" not in outcome.text
        assert outcome.how in hostile.must, outcome.text[-2000:]
        assert not outcome.rewarded
        assert hostile.run == "program" or len(outcome.text) < 5000
        if hostile.says is not None:
            assert outcome.text.strip() == hostile.says
    assert ordinary_is_right(box, hostile.run)
