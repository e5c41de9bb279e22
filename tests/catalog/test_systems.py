import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from guerdon.catalog import System, find, load, problems
from guerdon.core.errors import GuerdonError

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("GUERDON_SHARED", ROOT.parent / "shared"))


def collect(proofs):
    """The ids that pytest collects from the files the proofs are in."""
    paths = sorted({path for proof in proofs if (ROOT / (path := proof.partition("::")[0])).is_file()})
    if not paths:
        return set()
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *paths]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    return {line for line in listed.stdout.splitlines() if "::" in line}


def row(**changes):
    return {"n": 0, "name": "A", "title": "An A", "rooms": ["credit"], **changes}


@pytest.fixture
def catalogue(tmp_path):
    def write(*rows):
        path = tmp_path / "systems.toml"
        lines = (
            f"[[system]]\n{''.join(f'{key} = {json.dumps(value)}{chr(10)}' for key, value in row.items())}"
            for row in rows
        )
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def parts(monkeypatch):
    """Two parts: one that names its source and one that does not."""

    def sourced(): ...
    def unsourced(): ...

    sourced.__doc__ = "One thing.\n\nSource: a paper."
    unsourced.__doc__ = "Another thing, from some source."
    module = types.ModuleType("guerdon.rewards.catalogued")
    vars(module).update(sourced=sourced, unsourced=unsourced)
    monkeypatch.setitem(sys.modules, "guerdon.rewards.catalogued", module)


def test_all_261_systems_are_there_once_and_in_order():
    systems = load()
    assert [system.n for system in systems] == list(range(261))
    assert len({system.name.casefold() for system in systems}) == 261


@pytest.mark.skipif(not (SHARED / "systems" / "index.json").is_file(), reason=f"{SHARED}/systems is not there")
def test_the_catalogue_agrees_with_the_index():
    index = json.loads((SHARED / "systems" / "index.json").read_text())
    expected = {entry["n"]: (entry["name"], entry["title"], tuple(entry["rooms"])) for entry in index}
    assert {system.n: (system.name, system.title, system.rooms) for system in load()} == expected


@pytest.mark.processes
def test_what_the_catalogue_claims_is_so():
    systems = load()
    assert problems(systems, collected=collect([proof for system in systems for proof in system.proof])) == []


@pytest.mark.processes
def test_collecting_finds_real_tests_and_no_others():
    here = "tests/catalog/test_systems.py"
    found = collect([f"{here}::test_nothing_of_the_sort", "tests/catalog/no_such_file.py::test_x"])
    assert f"{here}::test_all_261_systems_are_there_once_and_in_order" in found
    assert f"{here}::test_a_row_that_claims_too_much_is_refused[a part, no proof]" in found
    assert f"{here}::test_nothing_of_the_sort" not in found


def test_a_part_that_does_not_exist_is_a_problem(parts):
    (problem,) = problems([System(7, "A", "", ("credit",), "partial", ("catalogued.sauced",))], collected=())
    assert problem.startswith("7 A: ")
    assert "there is no part 'catalogued.sauced'" in problem


def test_a_part_without_a_source_is_a_problem(parts):
    system = System(7, "A", "", ("credit",), "partial", ("catalogued.sourced", "catalogued.unsourced"))
    assert problems([system], collected=()) == ["7 A: the docstring of catalogued.unsourced has no 'Source:'"]


def test_a_proof_that_is_not_collected_is_a_problem(parts):
    proof = ("t.py::test_a", "t.py::test_b", "t.py::test_c[1]", "t.py::test_c[2]", "t.py::test")
    system = System(7, "A", "", ("credit",), "complete", ("catalogued.sourced",), proof)
    collected = ["t.py::test_a", "t.py::test_b[1]", "t.py::test_c[1]"]
    assert problems([system], collected=collected) == [
        "7 A: pytest does not collect t.py::test_c[2]",
        "7 A: pytest does not collect t.py::test",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"status": "complete", "parts": ["a.b"]}, "names its parts and its proof", id="a part, no proof"),
        pytest.param({"status": "complete", "proof": ["t.py::t"]}, "names its parts and its proof", id="no part"),
        pytest.param({"status": "partial", "proof": ["t.py::t"]}, "names the parts there are", id="partial, no part"),
        pytest.param({"status": "none", "parts": ["a.b"]}, "not 'none'", id="none, a part"),
        pytest.param({"parts": ["a.b"]}, "not 'none'", id="no status, a part"),
        pytest.param({"status": "none", "proof": ["t.py::t"]}, "not 'none'", id="none, a proof"),
        pytest.param({"status": "done"}, "status: 'done' is not a choice", id="status"),
        pytest.param({"rooms": ["credits"]}, "there is no room 'credits': did you mean 'credit'?", id="room"),
        pytest.param({"rooms": []}, "at least one room", id="no room"),
        pytest.param({"name": " "}, "has a name", id="no name"),
        pytest.param({"n": "zero"}, "n: ", id="number"),
        pytest.param({"proofs": ["t.py::t"]}, "unknown field 'proofs': did you mean 'proof'?", id="field"),
    ],
)
def test_a_row_that_claims_too_much_is_refused(catalogue, changes, message):
    with pytest.raises(GuerdonError, match=r"system 0") as error:
        load(catalogue(row(**changes)))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"n": 0, "name": "B"}, "each once"),
        ({"n": -1, "name": "B"}, "ordered by n"),
        ({"n": 1, "name": "a"}, "two systems are called 'a'"),
    ],
)
def test_numbers_and_names_are_unique_and_in_order(catalogue, second, message):
    with pytest.raises(GuerdonError, match=message):
        load(catalogue(row(), row(**second)))


def test_a_row_needs_its_title_and_a_file_toml(catalogue, tmp_path):
    with pytest.raises(GuerdonError, match="title"):
        load(catalogue({"n": 0, "name": "A", "rooms": ["credit"]}))
    (tmp_path / "broken.toml").write_text("[[system]\n")
    with pytest.raises(GuerdonError, match=r"broken\.toml"):
        load(tmp_path / "broken.toml")


def test_a_row_is_read_whole(catalogue):
    whole = row(status="complete", parts=["math.answer"], proof=["t.py::t"], differs="a little")
    (system,) = load(catalogue(whole))
    assert system.to_record() == whole


@pytest.mark.parametrize("name", ["LUSPO", "luspo", " Luspo ", "260"])
def test_a_system_is_found_by_name_in_any_case_or_by_number(name):
    assert find(name).title.startswith("Length-Unbiased Sequence Policy Optimization")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lospo", "did you mean 'LUSPO'"),
        ("laser-d", "did you mean 'LASER / LASER-D / LASER-DE'?"),
        ("qqqq", "'guerdon systems' lists all"),
        ("", "'guerdon systems' lists all"),
        ("261", "there is no system '261'"),
    ],
)
def test_a_name_that_is_not_there_gets_the_nearest(name, hint):
    with pytest.raises(GuerdonError) as error:
        find(name)
    assert hint in str(error.value)
