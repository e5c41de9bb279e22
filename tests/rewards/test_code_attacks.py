"""Programs that do not do what is asked, and try to pass nevertheless."""

import pytest

from guerdon.rewards import code
from guerdon.rewards.code import options
from guerdon.sandbox import SandboxUnavailable


@pytest.fixture(scope="module", autouse=True)
def isolated():
    try:
        options.check(packages=())
    except SandboxUnavailable as error:
        pytest.skip(str(error))


SECRET = "expectation-7c1f"
SIMPLE = [f"assert f(1) == '{SECRET}'", "assert f(2) == 'two'"]
COMPLEX = [f"x = 1\nassert f(x) == '{SECRET}'", "assert len(f(2)) == 3 and math.isclose(1.0, len(f(1)) / 16)"]

EQUAL = """
class Equal({base}):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __len__(self): return 3
    def __hash__(self): return 0
    __getattr__ = lambda self, name: lambda *given: True
"""

SEARCH = """
import gc, os, sys
def texts(value, depth=0):
    if isinstance(value, str):
        yield value
    elif depth < 4 and isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from texts(item, depth + 1)
    elif depth < 4 and isinstance(value, dict):
        for pair in list(value.items()):
            yield from texts(pair, depth + 1)
def everywhere():
    frame = sys._getframe()
    while frame:
        yield dict(frame.f_locals)
        yield dict(frame.f_globals)
        yield frame.f_code.co_consts
        frame = frame.f_back
    yield from gc.get_objects()
    for module in list(sys.modules.values()):
        yield dict(vars(module))
    yield dict(os.environ), sys.argv
    for path in ("/proc/self/environ", "/proc/self/cmdline", "/proc/self/mem", "/proc/1/mem", "/proc/self/maps"):
        try:
            yield open(path, errors="replace").read(1 << 20)
        except OSError:
            pass
    for root, folders, files in os.walk("/tmp"):
        yield files
    for descriptor in range(5, 64):
        try:
            os.set_blocking(descriptor, False)
            yield os.read(descriptor, 1 << 16).decode("utf-8", "replace")
        except OSError:
            pass
def found():
    for place in everywhere():
        for text in texts(place):
            at = text.find("".join(reversed("-noitatcepxe")))
            if 0 <= at <= len(text) - 16:
                return text[at : at + 16]
"""

FORGED = """
import json, os, struct, sys
def say(message):
    content = json.dumps(message).encode()
    os.write(3, struct.pack("=I", len(content)) + content)
"""

ATTACKS = {
    "lying objects": EQUAL.format(base="object") + "def f(x): return Equal()",
    "lying text": EQUAL.format(base="str") + "def f(x): return Equal('no')",
    "lying list": EQUAL.format(base="list") + "def f(x): return Equal()",
    "lying class": EQUAL.format(base="object") + "class f(Equal):\n    def __init__(self, x): pass",
    "lying in a list": EQUAL.format(base="object") + "def f(x): return [Equal()]",
    "exit": "import sys\nsys.exit(0)",
    "exit at once": "import os\nos._exit(0)",
    "exit when called": "import sys\ndef f(x): sys.exit(0)",
    "end when called": "import os\ndef f(x): os._exit(0)",
    "end at the second call": f"import os\ndef f(x):\n    if x == 2: os._exit(0)\n    return '{SECRET}'[::-1]",
    "an assertion error": "class Passed(AssertionError): pass\ndef f(x): raise Passed('passed')",
    "a keyboard interrupt": "def f(x): raise KeyboardInterrupt",
    "a generator's end": "def f(x): raise StopIteration('passed')",
    "built-in names": """
import builtins
class Never(Exception): pass
def f(x):
    builtins.AssertionError = Never
    builtins.abs = builtins.all = builtins.any = lambda *values: True
    return 0
""",
    "the length of everything": """
import builtins
def len(value): return 3
def f(x):
    builtins.len = len
    return 0
""",
    "modules": """
import sys, types
class Anything(types.ModuleType):
    def __getattr__(self, name): return lambda *given, **more: True
for name in ("math", "json", "operator", "unittest", "numpy"):
    sys.modules[name] = Anything(name)
def math(*given): return True
math.isclose = math
def len(x): return 3
def f(x): return 0
""",
    "json": """
import json, json.encoder
def f(x):
    json.dumps = json.JSONEncoder.encode = lambda *given, **more: '{"handle": 0}'
    return 0
""",
    "the answer to the right question": """
import sys
def f(x):
    from guerdon.sandbox.inside import plain
    frame = sys._getframe()
    while "ticket" not in frame.f_locals:
        frame = frame.f_back
    answer = '{"tuple": [%d, "value", {"handle": 0}, null]}' % frame.f_locals["ticket"]
    plain.dumps = lambda *given: answer.encode()
    return 0
""",
    "a handle": """
def f(x):
    from guerdon.sandbox.inside import plain
    encode = plain._encode
    plain._encode = lambda value, *more: {"handle": 0} if value == [7] else encode(value, *more)
    return [7]
""",
    "loaded twice": FORGED + 'say({"tuple": ["loaded"]})\nsay({"tuple": [1, "value", True, None]})\ndef f(x): return 0',
    "an answer before the question": FORGED + "def f(x):\n    say({'tuple': [0, 'value', True, None]})\n    return 0",
    "a verdict": FORGED + "def f(x):\n    say({'tuple': ['passed']})\n    say({'tuple': ['passed']})\n    return 0",
    "a verdict for the other process": "import os\ndef f(x):\n    os.write(4, b'passed')\n    return 0",
    "a message too long": "import os\ndef f(x):\n    os.write(3, b'\\xff\\xff\\xff\\xff')\n    return 0",
    "a closed channel": "import os\ndef f(x):\n    os.close(3)\n    return 0",
    "hanging": "def f(x):\n    while True: pass",
    "hanging without signals": """
import signal
for number in range(1, 32):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
def f(x):
    while True:
        try:
            while True: pass
        except BaseException: pass
""",
    "all of memory": "def f(x):\n    return 'x' * (1 << 34)",
    "a bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "the search": SEARCH + "def f(x): return found()",
}


@pytest.mark.parametrize("tests", [SIMPLE, COMPLEX], ids=["simple", "complex"])
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_program_that_cheats_earns_nothing_and_spoils_nothing(attack, tests):
    score, details = code.unit_tests(credit="each", seconds=0.3, total=1.0).evaluate(attack, tests)
    assert score == 0, details
    honest = f"def f(x):\n    return {{1: '{SECRET}', 2: 'two'}}[x]"
    assert code.unit_tests().evaluate(honest, tests)[0] == 1


def test_the_search_would_find_what_is_there():
    program = SEARCH + "def f(x): return found()"
    assert code.unit_tests().evaluate(program, [f"assert f('{SECRET}') == '{SECRET}'"])[0] == 1


def test_a_search_does_not_find_what_another_program_was_asked():
    honest = "def f(x): return x"
    code.unit_tests().evaluate(honest, [f"assert f('{SECRET}') == '{SECRET}'"])
    attack = SEARCH + "def f(x): return found()"
    assert code.unit_tests().evaluate(attack, ["assert f(1) is None"])[0] == 1


HELPERS = "def poly(xs, x):\n    return sum(c * x ** i for i, c in enumerate(xs))\n\ndef find(xs):\n    '''A root.'''\n"
CHECK = "def check(candidate):\n    for c in (-2, -3):\n        assert abs(poly([c, 1], candidate([c, 1]))) < 1e-9\n"


@pytest.mark.parametrize(
    "attack",
    [
        "def poly(xs, x): return 0\ndef find(xs): return 1",
        "def find(xs): return 1\nglobals()['poly'] = lambda xs, x: 0",
        "def abs(x): return 0\ndef find(xs): return 1",
        "def check(candidate): pass\ndef find(xs): return 1",
        "class float(float): pass\ndef find(xs):\n    xs[:] = [0, 0]\n    return 1",
    ],
)
def test_helpers_that_a_program_redefines_are_not_the_tests_own(attack):
    assert code.humaneval().evaluate(attack, CHECK, "find", HELPERS)[0] == 0
    assert code.humaneval().evaluate("    return -xs[0]", CHECK, "find", HELPERS)[0] == 1


@pytest.mark.parametrize(
    "attack",
    [
        "def isclose(*values): return True\ndef f(x): return 0",
        "def sorted(xs): return 0\ndef f(x): return 0",
        "def sorted(xs): return 0\nsorted.__module__ = 'math'\ndef f(x): return 0",
    ],
)
def test_what_tests_compare_with_is_not_the_programs(attack):
    tests = ["assert isclose(f(2), 2.0)", "assert sorted([f(2), 1]) == sorted([1, 2])"]
    for test in tests:
        assert code.unit_tests().evaluate(attack, [test])[0] == 0
    assert code.unit_tests().evaluate("def f(x): return x", tests)[0] == 1


@pytest.mark.parametrize(
    "module", ["idlelib.idle", "this", "antigravity", "turtledemo.__main__", "", "math\\0", "x" * 70_000]
)
def test_what_a_program_says_of_itself_is_never_an_abstention(module):
    program = f"def h(x): return 1\nh.__module__ = '{module}'\ndef f(x): return 0"
    assert code.unit_tests().evaluate(program, ["assert h(f(1)) == 2"])[0] == 0


def test_a_program_may_not_name_an_exception_that_breaks_the_tests():
    program = """
class Nameless(type):
    __name__ = property(lambda self: "a" + chr(0))
class E(Exception, metaclass=Nameless): pass
def f(x): return 0
"""
    assert code.unit_tests().evaluate(program, ["try:\n    f(1)\nexcept E: pass\nassert f(1) == 1"])[0] == 0


@pytest.mark.parametrize(
    "attack",
    [
        "raise SystemExit(0)",
        "import os; os._exit(0)",
        SEARCH + "print(found() or '')",
        "import sys\nprint(open(sys.argv[0]).read())",
        "print('passed')",
        "import os\nfor n in range(3, 64):\n    try: os.write(n, b'{\"code\": 0}')\n    except OSError: pass",
    ],
)
def test_expected_output_cannot_be_found_where_the_program_runs(attack):
    score, _ = code.stdin_tests().evaluate(attack, ["1"], [SECRET])
    assert score == 0
    assert code.stdin_tests().evaluate(f"print('{SECRET}')", ["1"], [SECRET])[0] == 1
