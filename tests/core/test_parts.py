from __future__ import annotations

import subprocess
import sys

import pytest

from guerdon import credit, shaping
from guerdon.core import SpecError
from guerdon.core.parts import name_of, names, resolve
from guerdon.rewards import math, text


def test_a_name_is_the_shortest_door_without_rewards():
    assert name_of(math.answer) == "math.answer"
    assert name_of(text.length) == "text.length"
    assert name_of(shaping.center) == "shaping.center", "not shaping.pointwise.center, where it is written"
    assert name_of(credit.group_relative) == "credit.group_relative"
    assert name_of(subprocess.Popen) == "subprocess.Popen"


@pytest.mark.parametrize("name", names())
def test_name_of_and_resolve_are_inverses(name):
    assert name_of(resolve(name)) == name


def test_names_are_those_of_parts_and_of_nothing_else():
    assert {"math.answer", "format.tags", "text.length", "shaping.center", "shaping.brevity"} <= set(names())
    assert not {"shaping.Shaper", "text.Rollouts", "math.text_of"} & set(names())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("math.anser", "there is no part 'math.anser': did you mean 'math.answer'?"),
        ("shaping.centre", "did you mean 'shaping.center'?"),
        ("maths.answer", "did you mean 'math.answer'?"),
        ("subprocess.Popen", "a part from outside guerdon needs --allow-import"),
        ("answer", "there is no part 'answer'"),
        ("math.answer.__init__", "there is no part"),
        ("math._private", "there is no part"),
        ("", "there is no part ''"),
        (".", "there is no part '.'"),
        ("..math.answer", "there is no part"),
        ("math..answer", "there is no part"),
        ("math answer", "there is no part"),
        ("math.answer\x00", "there is no part"),
        ("judges.no_such", "there is no part 'judges.no_such'"),
    ],
)
@pytest.mark.parametrize("allow", [False, True])
def test_an_unknown_name_is_an_error_with_the_nearest_one(name, message, allow):
    if allow and "--allow-import" in message:
        assert resolve(name, allow_import=True) is subprocess.Popen
        return
    with pytest.raises(SpecError) as caught:
        resolve(name, allow_import=allow)
    assert message in str(caught.value)


def test_nothing_outside_guerdon_is_imported_unless_allowed(tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match="--allow-import"):
        resolve("elsewhere.part")
    with pytest.raises(SystemExit, match="imported"):
        resolve("elsewhere.part", allow_import=True)


def test_a_part_whose_own_import_fails_is_not_reported_as_unknown(tmp_path, monkeypatch):
    (tmp_path / "needy.py").write_text("import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        resolve("needy.part", allow_import=True)


def test_worker_processes_need_no_torch():
    """Importing guerdon, and naming and making its rewards, imports neither torch nor transformers."""
    program = (
        "import sys, pkgutil, importlib, guerdon.algebra.spec, guerdon.engine, guerdon.rewards\n"
        "for m in pkgutil.iter_modules(guerdon.rewards.__path__):\n"
        "    importlib.import_module(f'guerdon.rewards.{m.name}')\n"
        "guerdon.algebra.spec.load([{'part': 'math.answer', 'shape': 'shaping.center'}])\n"
        "print([m for m in ('torch', 'transformers', 'pyarrow', 'accelerate') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
