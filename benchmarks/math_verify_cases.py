"""How many of math-verify's own published test cases it gets right, and how many `math.answer` does; one line of JSON.

    python benchmarks/math_verify_cases.py [--sdist PATH] [--cache FOLDER] [--deadline 30] [--show]

The cases stand in the tests of math-verify's source distribution: one pinned release, fetched by pip and checked by
its hash, because its test modules are imported. A case is a gold answer, a prediction, and whether the prediction is
right. Counted are

- 'active': the parametrisations of its tests. It passes them all, or it would not have been released;
- 'commented_out': cases that stand labelled in comments, most of them because it fails them;
- 'both_labels': of these, the ones whose two texts are also published with the other label, under another setting;
- 'other': tests of something else (SymPy objects, choice letters, time limits, mocks), compared with nothing.

math-verify is right where its own test passes. `math.answer` reads the gold text as the reference and the prediction
as the completion, through the engine: an abstention, also one for a missed deadline, is not right. Its options are
the same for all cases, and those of math-verify's ways: an answer may be left to be computed (`unfinished`), boxes
near one another are one list (`several`), a comma may be a decimal point (`comma`), and relations are no sets
(`relations`). What a case states itself, a precision,
`strict=False` or `allow_set_relation_comp=True`, is that case's own.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import importlib
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from guerdon.core import Rollouts
from guerdon.engine import Engine
from guerdon.rewards import math

RELEASE = "math-verify==0.9.0"
SHA256 = "45ac6c61344ba056b9e99a660a4bc8d044ed408f730aed68c60435aa5eec4645"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "guerdon" / "benchmarks"
COMMENT = re.compile(r"\s*#(.*)")


class Case(NamedTuple):
    """One published case: the test, the arguments it is called with, and whether it is switched off."""

    test: Any
    arguments: dict[str, Any]
    commented_out: bool = False

    @property
    def right(self) -> bool | None:
        """Whether the prediction is said to be right; None for tests of something else."""
        said = self.arguments.get("expected", self.arguments.get("result"))
        return bool(said) if "gold" in self.arguments and said in (0, 1) else None

    @property
    def stated(self) -> tuple[tuple[str, Any], ...]:
        """The options of `math.answer` that the case states."""
        precision, strict = self.arguments.get("precision"), self.arguments.get("strict", True)
        options = {} if precision is None else {"tolerance": 10.0**-precision}
        if self.arguments.get("allow_set_relation_comp"):
            options["relations"] = "sets"
        return tuple((options if strict else options | {"variables": "renamed"}).items())

    @property
    def texts(self) -> tuple[str, str]:
        """The gold answer and the prediction."""
        return self.arguments["gold"], self.arguments["pred"]


def distribution(given: Path | None, cache: Path) -> Path:
    """The source distribution, downloaded unless it is there; only the pinned one."""
    path = given or cache / "math_verify-0.9.0.tar.gz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        wanted = cache / "requirements.txt"
        wanted.write_text(f"{RELEASE} --hash=sha256:{SHA256}\n")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*pip, "--require-hashes", "-r", str(wanted), "-d", str(cache)], check=True)
    if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{path} is not the source distribution of {RELEASE}")
    return path


def published(root: Path) -> Iterator[Case]:
    """Every call of every test that pytest would make, and those that stand in comments."""
    sys.path.insert(0, str(root))
    for path in sorted((root / "tests").glob("test_*.py")):
        module = importlib.import_module(f"tests.{path.stem}")
        named = [test for name, test in inspect.getmembers(module, inspect.isfunction) if name.startswith("test_")]
        tests = [test for test in named if test.__module__ == module.__name__]
        for test in tests:
            if not (parameters := _parameters(test)):
                yield Case(test, {})
            for names, values in parameters:
                yield Case(test, dict(zip(names, values, strict=True)))
        for line, values in _in_comments(path.read_text(encoding="utf-8").splitlines()):
            following = [test for test in tests if test.__code__.co_firstlineno <= line <= _last_line(test)]
            for test in following[:1]:
                yield Case(test, dict(zip(_parameters(test)[0][0], values, strict=True)), commented_out=True)


def _parameters(test: Any) -> list[tuple[list[str], tuple[Any, ...]]]:
    marks = [mark for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    return [([name.strip() for name in mark.args[0].split(",")], values) for mark in marks for values in mark.args[1]]


def _last_line(test: Any) -> int:
    lines, first = inspect.getsourcelines(test)
    return int(first + len(lines))


def _in_comments(lines: list[str]) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """The tuples of texts and a label in runs of comment lines, with the line they begin in."""
    first = 0
    while first < len(lines):
        comment = COMMENT.match(lines[first])
        if comment is None or not comment[1].strip().startswith("("):
            first += 1
            continue
        block = ""
        for last in range(first, len(lines)):
            more = COMMENT.match(lines[last])
            if more is None:
                break
            block += more[1].strip() + "\n"
            with contextlib.suppress(SyntaxError, ValueError):
                values = ast.literal_eval(block.strip().removesuffix(","))
                if isinstance(values, tuple) and len(values) == 3:
                    yield first + 1, values
                    first = last
                break
        first += 1


def theirs(case: Case) -> bool:
    """Whether math-verify passes its test."""
    try:
        case.test(**case.arguments)
    except AssertionError:
        return False
    return True


def ours(cases: list[Case], deadline: float) -> list[float | None]:
    """The scores `math.answer` gives, in the order of the cases; None for an abstention."""
    scores: list[float | None] = [None] * len(cases)
    with Engine(workers=1, deadline=deadline) as engine:
        for stated in {case.stated for case in cases}:
            rows = [i for i, case in enumerate(cases) if case.stated == stated]
            gold, predictions = zip(*(cases[i].texts for i in rows), strict=True)
            reward = math.answer(
                unfinished="accept",
                several="near",
                comma="either",
                **{"relations": "apart"} | dict(stated),
            )
            found = engine.score(reward, Rollouts([""] * len(rows), list(predictions), {"answer": list(gold)}))
            for i, value, valid in zip(rows, found.read(0.0), found.valid, strict=True):
                scores[i] = float(value) if valid else None
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdist", type=Path, help="the source distribution, if it is here already")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--deadline", type=float, default=30.0, help="seconds per case")
    parser.add_argument("--show", action="store_true", help="print the cases that only one of the two gets right")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(distribution(options.sdist, options.cache)) as archive:
            archive.extractall(folder, filter="data")
        everything = list(published(next(Path(folder).iterdir())))
        cases = [case for case in everything if case.right is not None]
        with contextlib.redirect_stdout(sys.stderr):
            library = [theirs(case) for case in cases]
    scores = ours(cases, options.deadline)
    reward = [score is not None and bool(score) == case.right for case, score in zip(cases, scores, strict=True)]
    labels: dict[tuple[str, str], set[bool | None]] = {}
    for case in cases:
        labels.setdefault(case.texts, set()).add(case.right)
    kinds = {
        "active": [not case.commented_out for case in cases],
        "commented_out": [case.commented_out for case in cases],
        "both_labels": [len(labels[case.texts]) > 1 for case in cases],
        "all_but_both_labels": [len(labels[case.texts]) == 1 for case in cases],
    }
    if options.show:
        for case, score, passed, right in zip(cases, scores, library, reward, strict=True):
            if passed != right:
                shown = {name: str(value)[-200:] for name, value in case.arguments.items()}
                only = {"only": "math-verify" if passed else "guerdon", "score": score}
                print(json.dumps(only | shown, ensure_ascii=False), file=sys.stderr)
    report = {
        kind: {
            "cases": sum(rows),
            "math_verify": sum(a for a, row in zip(library, rows, strict=True) if row),
            "guerdon": sum(b for b, row in zip(reward, rows, strict=True) if row),
            "abstained": sum(score is None for score, row in zip(scores, rows, strict=True) if row),
        }
        for kind, rows in kinds.items()
    }
    print(json.dumps(report | {"other": len(everything) - len(cases)}))


if __name__ == "__main__":
    main()
