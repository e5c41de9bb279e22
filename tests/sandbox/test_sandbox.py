"""What a run may do and may not, how it ends, and that sandboxes come back from whatever ends them."""

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guerdon.sandbox import BrokenTests, Late, Limits, Lost, NotPlain, Raised, Sandbox, SandboxFailed

MEGABYTE = 1 << 20


def in_thread(function, *arguments, **keywords):
    """Begin something; a function that gives its value."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *arguments, **keywords)
    pool.shutdown(wait=False)
    return future.result


def wait_for(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


class TestProgram:
    def test_reads_writes_and_is_the_main_module(self, box):
        ran = box.run(
            "import sys\nif __name__ == '__main__':\n    print(int(input()) ** 2)\n    print('hm', file=sys.stderr)",
            stdin="12\n",
            deadline=5.0,
        )
        assert (ran.ended, ran.code, ran.stdout, ran.stderr, ran.fine) == ("exit", 0, b"144\n", b"hm\n", True)

    @pytest.mark.parametrize(
        ("source", "code"),
        [
            ("", 0),
            ("import sys; sys.exit()", 0),
            ("import sys; sys.exit(3)", 3),
            ("import sys; sys.exit(256 + 7)", 7),
            ("raise SystemExit('why')", 1),
            ("raise SystemExit(True)", 1),
            ("import os; os._exit(9)", 9),
            ("1 / 0", 1),
            ("raise KeyboardInterrupt", 1),
            ("raise BaseException", 1),
            ("import atexit; atexit.register(print, 'x'); raise SystemExit(2)", 2),
            ("def f(:", 1),
            ("x = '\0'", 1),
            ("'\ud800'", 1),
            ("(" * 5000, 1),
        ],
        ids=range(15),
    )
    def test_ends_with_the_code_that_it_would_have_by_itself(self, source, code, box):
        ran = box.run(source, deadline=5.0)
        assert (ran.ended, ran.code) == ("exit", code)
        assert ran.fine == (code == 0)

    def test_an_error_is_told_as_python_does(self, box):
        ran = box.run("def f():\n    return {}['a']\nf()", deadline=5.0)
        assert ran.stderr.decode().splitlines()[-1] == "KeyError: 'a'"
        assert 'File "program.py", line 2, in f' in ran.stderr.decode()

    def test_a_crash_is_told_by_its_signal(self, box):
        ran = box.run("import ctypes; ctypes.string_at(0)", deadline=5.0)
        assert (ran.ended, ran.code, str(ran)) == ("signal", signal.SIGSEGV, "ended by SIGSEGV")

    def test_its_threads_are_waited_for(self, box):
        source = "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.05), print('late'))).start()"
        assert box.run(source, deadline=5.0).stdout == b"late\n"

    def test_input_that_nobody_reads_does_no_harm(self, box):
        assert box.run("print('done')", stdin=b"x" * (4 * MEGABYTE), deadline=5.0).stdout == b"done\n"

    def test_long_input_is_read_and_echoed_at_once(self, box):
        text = os.urandom(MEGABYTE // 2).hex().encode()
        ran = box.run("import sys\nfor c in iter(lambda: sys.stdin.read(4096), ''): sys.stdout.write(c)",
                      stdin=text, deadline=5.0)  # fmt: skip
        assert ran.stdout == text

    def test_imports_the_standard_library_and_nothing_else(self, box):
        ran = box.run(
            "import sqlite3, decimal, asyncio, zoneinfo\nprint(zoneinfo.ZoneInfo('UTC'))\nimport numpy", deadline=5.0
        )
        assert ran.stdout == b"UTC\n"
        assert b"No module named 'numpy'" in ran.stderr

    def test_runs_have_random_numbers_of_their_own(self, box):
        source = "import random, os, uuid; print(random.random(), os.urandom(8), uuid.uuid4())"
        first, second = (box.run(source, deadline=5.0).stdout.split() for _ in range(2))
        assert not set(first) & set(second)

    def test_time_is_told(self, box):
        ran = box.run(
            "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass", deadline=5.0
        )
        assert 0.15 < ran.cpu < 2.0
        assert ran.seconds > 0.15

    def test_deadline_ends_it_and_what_it_wrote_is_kept(self, box):
        ran = box.run("import time\nprint('so far', flush=True)\ntime.sleep(60)", deadline=0.3)
        assert (ran.ended, ran.stdout, ran.fine) == ("deadline", b"so far\n", False)
        assert 0.3 <= ran.seconds < 10


BOUNDS = {  # limits, what is just within and just beyond them
    "memory": ({"memory": 64 * MEGABYTE}, "bytearray({} << 20)", 48, 80),
    "disk": (
        {"disk": MEGABYTE},
        "open('x', 'wb', buffering=0).write(bytes({} << 10)) == {} << 10 or 1 / 0",
        1024,
        1025,
    ),
    "disk of many files": (
        {"disk": MEGABYTE},
        "[open(str(i), 'wb', buffering=0).write(bytes(1 << 16)) == 1 << 16 or 1 / 0 for i in range({})]",
        15,
        17,
    ),
    "output": ({"output": 10_000}, "print('x' * {}, end='', flush=True)", 10_000, 10_001),
    "complaints": (
        {"output": 10_000},
        "print('x' * {}, end='', flush=True, file=__import__('sys').stderr)",
        10_000,
        10_001,
    ),
    "files": ({"files": 16}, "f = [open('/dev/null') for _ in range({})]", 13, 14),
    "threads": (
        {"threads": 8},
        "import threading, time\nfor _ in range({}): threading.Thread(target=time.sleep, args=(1,)).start()",
        8,
        9,
    ),
    "processes": (
        {"threads": 1, "processes": 4},
        "import os, time\nfor _ in range({}):\n    if os.fork() == 0:\n        time.sleep(5)\nos._exit(0)",
        4,
        5,
    ),
    "no processes": ({"processes": 1}, "import os\nfor _ in range({}):\n    if os.fork() == 0: os._exit(0)", 0, 1),
}


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_program_just_within_a_limit_is_fine_and_one_just_beyond_is_not(bound, box):
    limits, source, within, beyond = BOUNDS[bound]
    limits = Limits(**{"memory": 128 * MEGABYTE, **limits})
    fine = box.run(source.replace("{}", str(within)), deadline=5.0, limits=limits)
    assert fine.fine, fine.stderr.decode()
    over = box.run(source.replace("{}", str(beyond)), deadline=5.0, limits=limits)
    assert not over.fine
    assert over.ended == ("output" if "output" in limits.__dict__ and bound in ("output", "complaints") else "exit")
    assert len(over.stdout) <= limits.output


def test_memory_of_one_process_is_not_that_of_another(box):
    source = """
import os
for _ in range(3):
    if os.fork() == 0:
        try:
            held = bytearray(80 << 20)
            os._exit(1)
        except MemoryError:
            held = bytearray(40 << 20)
            os._exit(0)
print([os.wait()[1] for _ in range(3)])
"""
    ran = box.run(source, deadline=5.0, limits=Limits(memory=64 * MEGABYTE, processes=4))
    assert ran.stdout == b"[0, 0, 0]\n"


def test_what_a_run_wrote_is_given_back(box):
    def shared():
        return int(re.search(r"Shmem: +(\d+)", Path("/proc/meminfo").read_text())[1]) << 10

    before = shared()
    source = "open('x', 'wb').write(bytes(96 << 20))\nimport time\nprint(1, flush=True)\ntime.sleep({})"
    ran = in_thread(box.run, source.format(0.5), deadline=5.0, limits=Limits(disk=100 * MEGABYTE))
    assert wait_for(lambda: shared() - before > 80 * MEGABYTE)
    assert ran().fine
    assert wait_for(lambda: shared() - before < 40 * MEGABYTE)


class TestCalls:
    def test_gives_values_with_their_types(self, box):
        with box.load("def f(*a, **k):\n    return a, k\nclass Solution:\n    def g(self, x):\n        return {x}",
                      deadline=5.0) as program:  # fmt: skip
            assert program.call("f", 1, "a", keywords={"b": None}, deadline=5.0) == ((1, "a"), {"b": None})
            assert program.call("g", (1, 2), deadline=5.0) == {(1, 2)}

    def test_remembers_between_calls(self, box):
        with box.load("n = 0\ndef f():\n    global n\n    n += 1\n    return n", deadline=5.0) as program:
            assert [program.call("f", deadline=5.0) for _ in range(3)] == [1, 2, 3]

    def test_arguments_changed_in_place_are_changed_here(self, box):
        source = "def f(a, b, c):\n    a.sort()\n    b['x'] = a\n    c.append(5)\n    return len(a)"
        with box.load(source, deadline=5.0) as program:
            numbers, names, left = [3, 1, 2], {}, [4]
            assert program.call("f", numbers, names, left, deadline=5.0) == 3
            assert (numbers, names, left) == ([1, 2, 3], {"x": [1, 2, 3]}, [4, 5])
            assert program.call("f", untouched := [2, 1], {}, [], in_place=False, deadline=5.0) == 2
            assert untouched == [2, 1]

    def test_what_it_raises_is_told(self, box):
        source = """
class Own(KeyError):
    pass
def f(kind):
    raise {"own": Own, "value": ValueError}[kind]("why")
"""
        with box.load(source, deadline=5.0) as program:
            with pytest.raises(Raised, match="ValueError: why") as value:
                program.call("f", "value", deadline=5.0)
            with pytest.raises(Raised) as own:
                program.call("f", "own", deadline=5.0)
            with pytest.raises(Raised, match="NameError: name 'g' is not defined"):
                program.call("g", deadline=5.0)
        assert value.value.names[0] == "ValueError"
        assert own.value.names[:3] == ["Own", "KeyError", "LookupError"]

    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("while True:\n    pass", Late),
            ("import os\nos._exit(0)", Lost),
            ("raise ValueError('no')", Raised),
            ("def f(:", Raised),
            ("import sys\nsys.exit(0)", Raised),
        ],
    )
    def test_what_does_not_load_says_so(self, source, error, box):
        with pytest.raises(error):
            box.load(source, deadline=0.3)

    def test_a_late_program_is_ended_and_lost(self, box, ends, descendants):
        before = descendants()
        with box.load("def f():\n    while True:\n        pass", deadline=5.0) as program:
            with pytest.raises(Late, match=r"deadline 0\.2 s"):
                program.call("f", deadline=0.2)
            assert ends(descendants() - before)
            with pytest.raises(Lost):
                program.call("f", deadline=5.0)

    def test_a_closed_program_does_not_speak_to_whoever_has_its_descriptor_next(self, box):
        program = box.load("def f():\n    return 1", deadline=5.0)
        program.close()
        ours, theirs = socket.socketpair()
        with ours, theirs, contextlib.ExitStack() as opened:
            for _ in range(8):  # one of these has its number
                opened.enter_context(open(os.dup(theirs.fileno()), "rb"))
            with pytest.raises((Lost, OSError, ValueError)):
                program.call("f", deadline=0.5)
            ours.setblocking(False)
            with pytest.raises(BlockingIOError):
                ours.recv(100)

    @pytest.mark.parametrize(
        "argument", [object(), print, type("L", (list,), {})([1])], ids=["object", "print", "list"]
    )
    def test_only_plain_data_is_sent(self, argument, box):
        with box.load("def f(x):\n    return 1", deadline=5.0) as program:
            with pytest.raises(NotPlain):
                program.call("f", argument, deadline=5.0)
            assert program.call("f", 1, deadline=5.0) == 1

    def test_an_object_does_not_come_back(self, box):
        with box.load("class Stack:\n    pass\ndef f():\n    return Stack()", deadline=5.0) as program:
            for name in ("Stack", "f"):
                with pytest.raises((Lost, Raised)):
                    program.call(name, deadline=5.0)

    @pytest.mark.parametrize(
        "does", ["pass", "os.write(3, bytes(1 << 16))", "time.sleep(60)"], ids=["spins", "floods", "sleeps"]
    )
    def test_one_who_reads_nothing_holds_nobody_up(self, does, box):
        loaded = '{"tuple":["loaded"]}'
        source = f"""
import os, struct, time
os.write(3, struct.pack("=I", {len(loaded)}) + b'{loaded}')
while True:
    {does}
"""
        with box.load(source, deadline=5.0) as program:
            began = time.monotonic()
            with pytest.raises((Late, Lost)):
                program.call("f", "x" * (16 * MEGABYTE), deadline=0.5)
            assert time.monotonic() - began < 5.0

    def test_long_arguments_and_answers_pass(self, box):
        with box.load("def f(x):\n    return len(x), x[:1_000_000]", deadline=5.0) as program:
            assert program.call("f", "y" * (4 * MEGABYTE), deadline=5.0) == (4 * MEGABYTE, "y" * 1_000_000)

    def test_answers_longer_than_are_read_are_lost(self, box):
        with (
            box.load("def f(n):\n    return 'x' * n", deadline=5.0) as program,
            pytest.raises(Lost, match="is more than 4,194,304"),
        ):
            program.call("f", 5 * MEGABYTE, deadline=5.0)


def judged(box, source, tests, **options):
    program = box.load(source, deadline=5.0)
    with box.judge(program, tests, deadline=5.0, **options) as judge:
        return [judge.run(test, deadline=5.0) for test in range(len(tests))]


class TestJudge:
    def test_says_of_each_test_whether_it_passes_and_why_not(self, box):
        outcomes = judged(box, "def f(x):\n    return x + 1", ["assert f(1) == 2", "assert f(1) == 3, f(1)", "g()"])
        assert outcomes == [None, "line 1: AssertionError: 2", "line 1: NameError: name 'g' is not defined"]

    def test_setup_stays_beside_the_tests(self, box):
        setup = "SECRET = [1]\ndef check(answer):\n    assert answer == SECRET"
        source = "def f():\n    return SECRET"
        assert judged(box, source, ["check(f())"], setup=setup) == ["line 1: NameError: name 'SECRET' is not defined"]

    @pytest.mark.parametrize(
        ("setup", "test"),
        [
            ("1 / 0", "f()"),
            ("def (", "f()"),
            ("", "assert ("),
            ("raise SystemExit(0)", "f()"),
            ("import os; os._exit(0)", "f()"),
        ],
    )
    def test_tests_that_are_none_are_no_fault_of_the_program(self, setup, test, box):
        with pytest.raises(BrokenTests):
            judged(box, "def f():\n    return 1", [test], setup=setup)

    def test_a_setup_without_an_end_is_no_fault_of_the_program(self, box):
        program = box.load("def f():\n    return 1", deadline=5.0)
        with pytest.raises(BrokenTests, match="setup"):
            box.judge(program, ["f()"], setup="while True:\n    pass", deadline=0.3)

    def test_a_program_that_does_not_answer_is_no_fault_of_the_tests(self, box):
        source = (
            "import time\nfrom guerdon.sandbox.inside import calls\n"
            "calls.Program._describe = lambda self, names: time.sleep(60)"
        )
        program = box.load(source, deadline=5.0)
        with pytest.raises(Late):
            box.judge(program, ["f()"], deadline=0.3)

    def test_objects_are_asked_and_never_believed(self, box):
        source = """
class Stack:
    kind = "stack"
    def __init__(self, items=()):
        self.items = list(items)
        self.other = object()
    def push(self, item):
        self.items.append(item)
        return self
    def size(self):
        return len(self.items)
    def holds(self, other):
        return other is self
    def __eq__(self, other):
        return True
    def __len__(self):
        return 3
    def __call__(self):
        return True
"""
        tests = [
            "s = Stack([1]); s.push(2); assert s.size() == 2 and s.items == [1, 2] and s.kind == 'stack'",
            "s = Stack(); assert s.holds(s) is True and s.holds(Stack()) is False",
            "assert Stack() == 3",
            "assert len(Stack()) == 3",
            "Stack().items = 3",
            "assert Stack().other == 1",
            "Stack().missing",
            "Stack()()",
        ]
        outcomes = judged(box, source, tests)
        assert outcomes[:2] == [None, None]
        assert None not in outcomes[2:]

    def test_exceptions_are_caught_by_their_names(self, box):
        source = "class Own(LookupError):\n    pass\ndef f(x):\n    raise Own('why') if x else ZeroDivisionError"
        test = "try:\n    f({})\nexcept {} as error:\n    pass\nelse:\n    assert False"
        assert judged(
            box, source, [test.format(1, "Own"), test.format(1, "LookupError"), test.format(0, "ArithmeticError")]
        ) == [None, None, None]

    @pytest.mark.parametrize("kind", ["StopIteration", "StopAsyncIteration", "GeneratorExit", "SystemExit"])
    def test_no_exception_ends_a_test_early(self, kind, box):
        source = f"class Own({kind}):\n    pass\ndef f(x):\n    raise {kind}\ndef g(x):\n    raise Own"
        tests = [
            f"assert {call}" for name in "fg" for call in (f"all(map({name}, [0, 0]))", f"list(map({name}, [0])) == []")
        ]
        assert None not in judged(box, source, tests)

    def test_a_late_test_ends_the_program_and_its_judge(self, box, ends, descendants):
        before = descendants()
        program = box.load("def f():\n    while True:\n        pass", deadline=5.0)
        with box.judge(program, ["f()"], deadline=5.0) as judge:
            with pytest.raises(Late):
                judge.run(0, deadline=0.2)
            assert ends(descendants() - before)

    def test_what_a_test_names_is_not_the_programs_where_there_is_another(self, box):
        source = """
def sorted(x):
    return 3
class math:
    pi = 4
def isclose(*a):
    return True
def f():
    return 3
"""
        tests = ["assert sorted([1]) == 3", "assert math.pi == 4", "assert isclose(1, 2)", "assert f() == 3"]
        assert [outcome is None for outcome in judged(box, source, tests)] == [False, False, False, True]
        assert judged(box, source, tests[:1], under_test=["sorted"]) == [None]


@pytest.fixture(scope="module")
def tools(isolation):
    with Sandbox(tools=["sort", "cat", "ls"]) as box:
        yield box


class TestCommand:
    def test_reads_files_and_input(self, tools):
        ran = tools.command(
            ["sort", "a", "folder/b", "-"], files={"a": "3\n", "folder/b": b"1\n"}, stdin=b"2\n", deadline=5.0
        )
        assert (ran.stdout, ran.fine) == (b"1\n2\n3\n", True)

    def test_has_no_channel_and_no_files_but_its_own(self, tools):
        ran = tools.command(["ls", "-A", "/tmp", "/dev/fd/3"], files={"a": ""}, deadline=5.0)
        assert ran.stdout == b"/tmp:\na\n"
        assert ran.code != 0

    @pytest.mark.parametrize("name", ["/tmp/x", "../x", "a/../../x"])
    def test_writes_no_file_outside_of_its_folder(self, name, tools):
        with pytest.raises(ValueError, match="lies outside"):
            tools.command(["cat"], files={name: ""}, deadline=5.0)

    def test_executes_nothing_but_the_tools(self, tools):
        with pytest.raises(ValueError, match="'sh' is none of the tools of this sandbox: sort, cat, ls"):
            tools.command(["sh", "-c", "true"], deadline=5.0)

    def test_fails_as_the_command_does(self, tools):
        ran = tools.command(["cat", "missing"], deadline=5.0)
        assert (ran.ended, ran.code) == ("exit", 1)
        assert b"No such file" in ran.stderr


class TestSandbox:
    """Each of these has one of its own, for it is not left whole."""

    @pytest.fixture
    def own(self, isolation):
        with Sandbox() as box:
            box.check()
            yield box

    @staticmethod
    def family(own, descendants):
        """Bubblewrap, the first process inside and the warm interpreter of a sandbox, by their age."""
        pid = own._zygote._bubblewrap.pid
        return [pid, *sorted(descendants(pid))]

    @staticmethod
    def runs(pid):
        """Whether a process has got as far as to be held by a filter, which is the last before its program begins."""
        with contextlib.suppress(OSError):
            return "Seccomp:\t2" in Path(f"/proc/{pid}/status").read_text()
        return False

    def test_hundreds_of_runs_leave_nothing_behind(self, box, descendants):
        def held():
            return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in family if os.access(f"/proc/{pid}/fd", os.R_OK)}

        box.run("", deadline=5.0)
        family, here = self.family(box, descendants), len(os.listdir("/proc/self/fd"))
        before = held()
        for number in range(200):
            assert box.run("print(input())", stdin=str(number), deadline=5.0).stdout == b"%d\n" % number
        assert self.family(box, descendants) == family
        assert wait_for(lambda: all(number <= before[pid] for pid, number in held().items()))
        assert len(os.listdir("/proc/self/fd")) <= here

    def test_a_run_has_no_rights_and_namespaces_of_its_own(self, own, descendants):
        def namespaces(pid):
            return {kind: os.readlink(f"/proc/{pid}/ns/{kind}") for kind in ("net", "pid", "mnt", "ipc", "uts", "user")}

        inside = self.family(own, descendants)[-1]
        programs = [own.load("", deadline=5.0, limits=Limits(processes=n)) for n in (1, 8)]
        runs = descendants(inside)
        with programs[0], programs[1]:
            try:
                of_runs, of_interpreter = [namespaces(pid) for pid in runs], namespaces(inside)
            except PermissionError:
                pytest.skip("the namespaces of other users are not to be seen")
            for pid in runs:
                status = dict(re.findall(r"(\w+):[ \t]*(.*)", Path(f"/proc/{pid}/status").read_text()))
                assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
                assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
                assert os.geteuid() or not status["Groups"].split()
                assert sorted(map(int, os.listdir(f"/proc/{pid}/fd"))) == [0, 1, 2, 3]
        first, second = of_runs
        assert not set(of_interpreter.values()) & set(namespaces("self").values())
        for kind in ("pid", "mnt", "ipc", "user"):
            assert len({first[kind], second[kind], of_interpreter[kind]}) == 3

    def test_threads_share_it(self, box):
        def work(thread):
            return [
                box.run("print(input())", stdin=f"{thread} {n}", deadline=10.0).stdout == f"{thread} {n}\n".encode()
                for n in range(10)
            ]

        with ThreadPoolExecutor(8) as pool:
            assert all(all(outcomes) for outcomes in pool.map(work, range(8)))

    def test_deadlines_hold_in_threads(self, box):
        with ThreadPoolExecutor(8) as pool:
            ran = list(pool.map(lambda _: box.run("while True: pass", deadline=0.3), range(8)))
        assert {r.ended for r in ran} == {"deadline"}
        assert max(r.seconds for r in ran) < 5.0

    def test_runs_do_not_count_one_anothers_processes(self, box):
        source = """
import os, time
count = 0
try:
    while count < 100:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    print(count, flush=True)
    time.sleep(0.5)
"""
        limits = Limits(processes=8, threads=1)
        with ThreadPoolExecutor(2) as pool:
            counts = list(pool.map(lambda _: box.run(source, deadline=5.0, limits=limits).stdout, range(2)))
        assert counts == [b"8\n", b"8\n"]

    def test_outlives_the_thread_that_started_it(self, isolation):
        with Sandbox() as own:
            thread = threading.Thread(target=own.check)
            thread.start()
            thread.join()
            time.sleep(0.1)
            assert own.run("print(1)", deadline=5.0).stdout == b"1\n"

    def test_comes_back_after_its_interpreter_is_killed(self, own, descendants, ends):
        for which in (1, 2):
            before = descendants() - set(self.family(own, descendants))
            family = self.family(own, descendants)
            os.kill(family[which], signal.SIGKILL)
            assert ends(set(family[1:]))
            assert own.run("print(1)", deadline=5.0).stdout == b"1\n"
            assert len(descendants() - before) == 3

    @pytest.mark.parametrize("which", [1, 2], ids=["first inside", "interpreter"])
    def test_a_run_whose_sandbox_is_killed_is_no_verdict(self, which, own, descendants, ends):
        family = self.family(own, descendants)
        run = in_thread(own.run, "import time; time.sleep(60)", deadline=30.0)
        program = own.load("def f():\n    import time; time.sleep(60)", deadline=5.0)
        assert wait_for(lambda: sum(map(self.runs, descendants(family[0]))) == 2)
        os.kill(family[which], signal.SIGKILL)
        with pytest.raises(SandboxFailed, match="the sandbox has ended"):
            run()
        with pytest.raises(SandboxFailed, match="the sandbox has ended"), program:
            program.call("f", deadline=5.0)
        assert ends(set(family))
        assert own.run("print(1)", deadline=5.0).stdout == b"1\n"

    def test_bubblewrap_killed_leaves_nobody_behind(self, own, descendants, ends):
        family = self.family(own, descendants)
        run = in_thread(own.run, "import time; time.sleep(0.3); print(1)", deadline=5.0)
        assert wait_for(lambda: len(descendants(family[0])) == 3)
        os.kill(family[0], signal.SIGKILL)
        assert run().stdout == b"1\n"
        own.close()
        assert ends(set(family))

    def test_close_ends_all_that_runs(self, own, descendants, ends):
        before = descendants() - set(self.family(own, descendants))
        source = (
            "import os, time\nfor _ in range(3):\n    os.fork()\nos.setsid() if os.getpid() != 1 else 0\ntime.sleep(60)"
        )
        run = in_thread(own.run, source, deadline=30.0, limits=Limits(processes=16))
        program = own.load("def f():\n    return 1", deadline=5.0)
        assert wait_for(lambda: len(descendants() - before) == 3 + 8 + 1)
        everyone = descendants() - before
        own.close()
        assert ends(everyone)
        with pytest.raises(SandboxFailed):
            run()
        program.close()
        assert own.run("print(1)", deadline=5.0).stdout == b"1\n"

    def test_a_sandbox_that_is_forgotten_ends(self, isolation, descendants, ends):
        held = [Sandbox()]
        held[0].check()
        family = self.family(held[0], descendants)
        with pytest.warns(ResourceWarning):
            held.clear()
        assert ends(set(family))

    def test_close_ends_an_interpreter_that_does_not_react(self, own, descendants, ends, monkeypatch):
        monkeypatch.setattr("guerdon.sandbox.box.GRACE", 0.2)
        family = self.family(own, descendants)
        os.kill(family[-1], signal.SIGSTOP)
        own.close()
        assert ends(set(family))

    def test_a_fork_of_this_process_starts_its_own_and_leaves_this_one_alone(self, own, descendants, ends):
        family = self.family(own, descendants)
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            try:
                answer = own.run("print(1)", deadline=5.0).stdout == b"1\n"
                another = own._zygote._bubblewrap.pid != family[0]
                own.close()
                os.write(write, b"fine" if answer and another else b"wrong")
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        os.close(write)
        with open(read, "rb") as said:
            assert said.read() == b"fine"
        assert own.run("print(2)", deadline=5.0).stdout == b"2\n"
        assert self.family(own, descendants) == family

    def test_close_does_not_wait_for_forks_of_this_process(self, own, descendants, ends):
        family = self.family(own, descendants)
        read, write = os.pipe()
        if (child := os.fork()) == 0:
            os.close(write)
            os.read(read, 1)  # until the parent hangs up
            os._exit(0)
        began = time.monotonic()
        own.close()
        assert ends(set(family), 2.0)
        assert time.monotonic() - began < 4.0
        os.close(write)
        os.close(read)
        os.waitpid(child, 0)

    def test_death_of_this_process_leaves_nobody_behind(self, isolation, tmp_path, descendants, ends):
        script = tmp_path / "script.py"
        script.write_text(
            "import threading, time\nfrom guerdon.sandbox import Limits, Sandbox\n"
            "box = Sandbox(limits=Limits(processes=4))\nbox.check()\n"
            "source = 'import os, time; os.fork(); os.setsid() if os.getpid() != 1 else 0; time.sleep(60)'\n"
            "for _ in range(2):\n"
            "    threading.Thread(target=box.run, args=(source,), kwargs={'deadline': 60}).start()\n"
            "time.sleep(60)\n"
        )
        child = os.posix_spawn(sys.executable, [sys.executable, str(script)], os.environ)
        assert wait_for(lambda: len(descendants(child)) == 3 + 4, 20.0)
        everyone = descendants(child)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert ends(everyone)


@pytest.mark.parametrize("bomb", ["fork_bomb_many", "memory_bomb_growing", "thread_bomb", "output_flood"])
def test_neighbours_of_a_bomb_are_right(bomb, box):
    source = (Path(__file__).parent / "hostile" / f"{bomb}.py").read_text()
    limits = Limits(memory=256 * MEGABYTE, processes=8, output=1 << 30)
    with Sandbox() as other:
        other.check()
        explode = in_thread(other.run, source, deadline=1.0, limits=limits)
        for neighbour in (box, other):
            for number in range(3):
                ran = neighbour.run(
                    "import threading\nt = threading.Thread(target=print, args=(input(),))\nt.start(); t.join()",
                    stdin=str(number),
                    deadline=8.0,
                )
                assert ran.stdout == b"%d\n" % number, ran
        explode()


def test_more_memory_is_not_fewer_threads(box):
    """An arena of the allocator's own for each thread would take 64 MiB of what the program may have."""
    source = "import threading, time\nfor _ in range(16): threading.Thread(target=time.sleep, args=(0.2,)).start()"
    ran = box.run(source, deadline=5.0, limits=Limits(memory=512 * MEGABYTE, threads=16))
    assert ran.fine, ran.stderr.decode()
