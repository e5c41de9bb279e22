"""What the cache knows a leaf by: the same where its scores are the same, another where they may not be."""

import importlib
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest

from guerdon import Leaf, Learned, models, reward
from guerdon.algebra import identity as identities
from guerdon.algebra.spec import load
from guerdon.rewards import format as formats, math as maths

PART = """
    from guerdon import reward
    from of_mine.words import WORDS

    @reward(range=(0, 1))
    def polite(completion, *, least=1):
        from of_mine.lazy import count
        return count(completion, WORDS) >= least

    @reward(range=(0, 1))
    def contextual(completion, context):
        return 1.0

    @reward(range=(0, 1), requires={"tokens"})
    def counted(completion):
        return 1.0
"""


@pytest.fixture
def of_mine(tmp_path, monkeypatch):
    """A package of somebody's own; gives its parts as they are in a process that has just begun."""
    folder = tmp_path / "of_mine"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    files = {
        "__init__": "",
        "judge": textwrap.dedent(PART),
        "words": "WORDS = ['please']\n",
        "lazy": "from .deep import count as counted\ncount = counted\n",
        "deep": "def count(text, words): return sum(text.count(word) for word in words)\n",
        "aside": "UNUSED = 1\n",
    }

    def begin(**changes):
        for name, text in {**files, **changes}.items():
            (folder / f"{name}.py").write_text(text)
        for name in [name for name in sys.modules if name.partition(".")[0] == "of_mine"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return importlib.import_module("of_mine.judge")

    yield begin
    for name in [name for name in sys.modules if name.partition(".")[0] == "of_mine"]:
        del sys.modules[name]


def test_options_make_another_leaf():
    assert maths.answer().identity() == maths.answer(tolerance=1e-6).identity() == load("math.answer").identity()
    leaves = [
        maths.answer(),
        maths.answer(tolerance=1e-3),
        formats.tags("a"),
        formats.tags("a", "b"),
        formats.tags("b"),
    ]
    assert len({leaf.identity() for leaf in leaves}) == len(leaves)


def test_an_identity_is_the_same_in_another_process():
    program = "from guerdon.rewards import math; print(math.answer().identity(), end='')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == maths.answer().identity()


@pytest.mark.parametrize("edited", ["judge", "words", "lazy", "deep", "__init__"])
def test_code_that_is_edited_makes_another_leaf(edited, of_mine):
    first = of_mine().polite().identity()
    assert of_mine().polite().identity() == first
    file = of_mine().__file__.replace("judge.py", f"{edited}.py")
    with open(file) as source:
        changed = source.read() + "# edited\n"
    assert of_mine(**{edited: changed}).polite().identity() != first
    assert of_mine().polite().identity() == first
    assert of_mine(aside="UNUSED = 2\n").polite().identity() == first


def test_what_is_edited_while_it_is_in_use_counts_once_it_is_reloaded(of_mine):
    module = of_mine()
    first = module.polite().identity()
    with open(module.__file__, "a") as source:
        source.write("# edited\n")
    assert module.polite().identity() == first
    assert importlib.reload(module).polite().identity() != first


def test_libraries_count_by_their_version(of_mine, monkeypatch):
    judge = textwrap.dedent(PART) + "import numpy.linalg\nimport json\n"
    first = of_mine(judge=judge).polite().identity()
    assert "'numpy " in first
    version = identities._version
    monkeypatch.setattr(identities, "_version", lambda name: "99" if name == "numpy" else version(name))
    assert of_mine(judge=judge).polite().identity() == first.replace("'numpy " + version("numpy"), "'numpy 99")


def test_guerdon_counts_by_its_sources_and_what_it_needs(monkeypatch):
    digest = identities._guerdon.__wrapped__
    first = digest()
    assert digest() == first
    monkeypatch.setattr(identities, "_version", lambda name: "99" if name == "math-verify" else "")
    other = digest()
    monkeypatch.setattr(identities, "_version", lambda name: "")
    assert len({first, other, digest()}) == 3


def test_what_reads_more_than_columns_has_none(of_mine):
    module = of_mine()
    assert module.contextual().identity() is None
    assert module.counted().identity() is None


def test_a_class_that_is_given_whole_rollouts_has_none_unless_it_says_what_it_reads():
    assert Whole("here").identity() is None
    assert Declared("here").identity() == "here, of completions"


def test_rewards_that_learn_in_a_run_have_none():
    learn = [models.implicit_reward(), models.flow_reward(), models.decomposed_return(factors=len)]
    assert [leaf.identity() for leaf in learn] == [None] * 3


@pytest.mark.parametrize("nested", [False, True])
def test_a_function_that_an_option_names_counts_with_its_code(nested, of_mine):
    judge = textwrap.dedent(PART) + "from typing import Any\n@reward(range=(0, 1))\ndef by(completion, *, rule: Any):\n"
    judge += "    return 1.0\n"

    def known():
        rule = importlib.import_module("of_mine.aside").rule
        return module.by(rule=[rule] if nested else rule).identity()

    module = of_mine(judge=judge, aside="def rule(text): return 1\n")
    first = known()
    module = of_mine(judge=judge, aside="def rule(text): return 1\n")
    assert known() == first is not None
    module = of_mine(judge=judge, aside="def rule(text): return 2\n")
    assert known() != first


def test_files_that_an_option_names_count_and_those_in_a_folder(tmp_path, of_mine):
    judge = textwrap.dedent(PART) + "@reward(range=(0, 1))\ndef by(completion, *, where: str):\n    return 1.0\n"
    module = of_mine(judge=judge)
    weights = tmp_path / "encoder" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"first")
    for where in (str(weights), str(weights.parent)):
        first = module.by(where=where).identity()
        assert module.by(where=where).identity() == first is not None
        weights.write_bytes(weights.read_bytes() + b", and more")
        assert module.by(where=where).identity() != first
    assert module.by(where="").identity() == module.by(where="").identity() is not None
    assert module.by(where="no/such/file").identity() is not None


def test_what_nothing_can_import_or_write_down_has_none():
    @reward(range=(0, 1))
    def local(completion):
        return 1.0

    assert local().identity() is None
    assert reward(range=(0, 1))(lambda completion: 1.0)().identity() is None
    assert Client(object()).identity() is None


@dataclass(frozen=True)
class Client(Leaf):
    """A leaf that may hold an open client, or the name of one."""

    client: object
    lane = "async"
    range = (0.0, 1.0)


@dataclass(frozen=True)
class Whole(Leaf):
    """A leaf that is given whole rollouts, and may read any of their columns."""

    where: str
    range = (0.0, 1.0)


class Declared(Whole):
    """One that says what it reads."""

    def identity(self):
        return f"{self.where}, of completions"


@dataclass(frozen=True)
class Trained(Learned):
    """A leaf whose weights change."""

    weights: str
    lane = "async"
    range = (0.0, 1.0)

    @property
    def version(self):
        return {"a": "1", "b": "2"}[self.weights]


def test_a_class_is_known_by_its_fields_and_weights():
    assert Client("here").identity() == Client("here").identity() != Client("there").identity()
    assert Client("here").identity() is not None
    first, second = Trained("a").identity(), Trained("b").identity()
    assert "'1'" in first
    assert first.replace("'a'", "'b'").replace("'1'", "'2'") == second
