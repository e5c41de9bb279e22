"""Tests as the task writes them: which of them are calls that can be judged here, and what they test."""

from __future__ import annotations

import ast
import builtins
import symtable
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from guerdon.core.errors import Abstain
from guerdon.rewards.code.calls import Case
from guerdon.rewards.code.comparing import equal, false, true
from guerdon.sandbox.inside.plain import dumps


class Suite(NamedTuple):
    """Tests, ready to be run.

    Args:
        tests: Python statements, each a test that fails by raising.
        setup: what the task defines beside them.
        under_test: the names that the program is to define, though they be built-in ones.
        cases: the same tests as calls, if all of them are as simple as that.
    """

    tests: tuple[str, ...]
    setup: str
    under_test: tuple[str, ...]
    cases: tuple[Case, ...] | None


@lru_cache(maxsize=1 << 8)
def suite(tests: tuple[str, ...], setup: str = "") -> Suite:
    """The tests of a list of statements.

    Under test is what they call with literals and compare with one, `assert sum([1, 2]) == 3`, unless the setup
    defines it. Built-in names are, only if there are no others: a test may say `assert sorted(…) == […]` too.

    Raises:
        Abstain: if a test or the setup is not Python, or a test is empty.

    >>> suite(("assert double(2) == 4", "assert double(-1) == -2")).under_test
    ('double',)
    """
    given = _defined(setup)
    cases = [_case(_statements(test, f"test {number}")) for number, test in enumerate(tests, 1)]
    called = {case.name for case in cases if case is not None} - given
    under_test = tuple(sorted(called - set(dir(builtins)) or called))
    return Suite(tests, setup, under_test, _calls(cases, under_test))


@lru_cache(maxsize=1 << 8)
def checked(test: str, setup: str, entry_point: str) -> Suite:
    """The tests of a function `check(candidate)`: its asserts, if it consists of them, else one call of it.

    Raises:
        Abstain: if the test or the setup is not Python, or defines no such function.

    >>> checked("def check(candidate):\\n    assert True\\n    assert candidate(2) == 4", "", "double").tests
    ('assert double(2) == 4',)
    """
    _defined(setup)
    asserts: list[ast.Assert] | None = None
    for statement in _statements(test, "test"):
        match statement:
            case ast.FunctionDef(name="check", args=ast.arguments(args=[ast.arg(arg=candidate)]), body=body):
                asserts = _asserts(body, candidate, entry_point)
                break
    else:
        raise Abstain("test defines no check(candidate)")
    under_test = (entry_point,)
    if asserts is None:
        return Suite((f"check({entry_point})",), f"{setup}\n\n{test}", under_test, None)
    if not asserts:
        raise Abstain("test asserts nothing")
    cases = _calls([_case([statement]) for statement in asserts], under_test)
    return Suite(tuple(map(ast.unparse, asserts)), f"{setup}\n\n{test}", under_test, cases)


def _asserts(body: list[ast.stmt], candidate: str, entry_point: str) -> list[ast.Assert] | None:
    """What a body asserts of a candidate, now by its name; None, if it does anything else."""
    asserts = []
    for statement in body:
        match statement:
            case ast.Assert(test=ast.Constant(value=value)) if value:  # asserts nothing
                pass
            case ast.Assert():
                asserts.append(_Renamed(candidate, entry_point).visit(statement))
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                return None
    return asserts


class _Renamed(ast.NodeTransformer):
    def __init__(self, old: str, new: str) -> None:
        self.old, self.new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.new, node.ctx) if node.id == self.old else node


def _statements(source: str, name: str) -> list[ast.stmt]:
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Abstain(f"{name} not Python: {error}") from None
    if not statements:
        raise Abstain(f"{name} is empty")
    return statements


def _defined(setup: str) -> set[str]:
    """The names that the setup defines."""
    try:
        symbols = symtable.symtable(setup, "setup", "exec").get_symbols()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Abstain(f"setup not Python: {error}") from None
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def _calls(cases: Sequence[Case | None], under_test: tuple[str, ...]) -> tuple[Case, ...] | None:
    simple = tuple(case for case in cases if case is not None and case.name in under_test)
    return simple if simple and len(simple) == len(cases) else None


def _case(statements: Sequence[ast.stmt]) -> Case | None:
    """A test as a call, if it is an assert of what one name gives when it is called with literals."""
    if len(statements) != 1 or not isinstance(statements[0], ast.Assert):
        return None
    try:
        match statements[0].test:
            case ast.Call() as call:
                return _call(call, true)
            case ast.UnaryOp(op=ast.Not(), operand=ast.Call() as call):
                return _call(call, false)
            case ast.Compare(
                left=ast.Call() as call,
                ops=[ast.Is()],
                comparators=[ast.Constant(value=True | False | None as constant)],
            ):
                return _call(call, lambda value: value is constant)
            case ast.Compare(left=ast.Call() as call, ops=[ast.Eq()], comparators=[right]):
                expected = ast.literal_eval(right)
                return _call(call, lambda value: equal(value, expected))
    except (ValueError, TypeError, RecursionError, MemoryError):  # no literals, or no plain data
        pass
    return None


def _call(call: ast.Call, passes: Callable[[Any], bool]) -> Case | None:
    match call:
        case ast.Call(func=ast.Name(id=name)) if all(keyword.arg for keyword in call.keywords):
            arguments = [ast.literal_eval(argument) for argument in call.args]
            keywords = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
            dumps([arguments, keywords])
            return Case(name, arguments, passes, keywords)
    return None
