import re

import pytest
from hypothesis import given, strategies as st

from guerdon.core.parsing import last_fenced
from guerdon.rewards.code.program import Program, program_in


@pytest.mark.parametrize(
    ("completion", "program"),
    [
        ("x = 1", "x = 1"),
        ("```python\nx = 1\n```", "x = 1"),
        ("```py\nx = 1\n```", "x = 1"),
        ("```Python3 title=a.py\nx = 1\n```", "x = 1"),
        ("```\nx = 1\n```", "x = 1"),
        ("~~~python\nx = 1\n~~~", "x = 1"),
        ("```python\r\nx = 1\r\n```\r\n", "x = 1\r"),
        ("First:\n```python\nx = 1\n```\nor better\n```python\nx = 2\n```\ndone", "x = 2"),
        ("```python\nx = 1\n```\nprints\n```text\n1\n```", "x = 1"),
        ("```python\nx = 1\n```\nRun it:\n```bash\npython x.py\n```", "x = 1"),
        ("```python\nx = 1\n```\n```", "x = 1"),
        ("Here:\n```python\nx = 1\ny = 2", "x = 1\ny = 2"),
        ("```python\nx = 1\n```\nno:\n```python\nx = 2", "x = 2"),
        ("1. so\n\n   ```python\n   def f():\n       return 1\n   ```", "def f():\n    return 1"),
        ("```\n    return 1\n```", "    return 1"),
        ("<think>```python\nx = 0\n```</think>x = 1", "x = 1"),
        ("<think>```python\nx = 0\n```", ""),
        ("```java\nint x;\n```", "```java\nint x;\n```"),
        ("", ""),
        (" \n", ""),
        ("```python\n\n```", "```python\n\n```"),
        (
            [{"role": "assistant", "content": "```python\nx = 1\n```"}, {"role": "tool", "content": "```\nx = 2\n```"}],
            "x = 1",
        ),
    ],
)
def test_the_program_is_the_last_python_block_or_all_of_the_reply(completion, program):
    assert program_in(completion) == program


def blocks_line_by_line(text):
    """CommonMark's rule for fences that are not indented, one line at a time: (language, content) of each block."""
    found, fence, content = [], None, []
    for line in text.split("\n"):
        mark = re.match(r"(`{3,}|~{3,})(.*)", line)
        if fence is None:
            if mark and not (mark[1][0] == "`" and "`" in mark[2]):
                fence, language, content = mark[1], mark[2].split()[0].lower() if mark[2].split() else "", []
        elif mark and mark[1][0] == fence[0] and len(mark[1]) >= len(fence) and not mark[2].strip():
            found.append((language, "\n".join(content)))
            fence = None
        else:
            content.append(line)
    return found if fence is None else [*found, (language, "\n".join(content))]


LINES = st.lists(
    st.sampled_from(["```", "```python", "````", "~~~", "```text", "``` a `b`", "x = 1", "", "  y"]), max_size=12
)


@given(LINES.map("\n".join))
def test_fenced_blocks_are_those_of_a_reading_line_by_line(text):
    wanted = [content for language, content in blocks_line_by_line(text) if language == "python" and content.strip()]
    assert last_fenced(text, "python") == (wanted[-1] if wanted else None)


@given(st.text(alphabet="`~ \n\r\tpythonx<>/think", max_size=200))
def test_no_completion_breaks_the_extraction(text):
    program_in(text)


@pytest.mark.parametrize("piece", ["```python\n", "```\nx\n```\n", "`" * 3, "~~~ a\n", " ", "   ```\n a\n"])
def test_a_long_completion_is_read_in_linear_time(piece):
    program_in(piece * 200_000)  # in quadratic time it would take hours


PROMPT = "from math import pi\n\ndef area(r):\n    '''The area.'''\n"


def run(program):
    names = {}
    exec(program.source, names)
    return names


@pytest.mark.parametrize(
    "code",
    [
        "    return pi * r * r\n",
        "def area(r):\n    return pi * r * r",
        "def helper(r):\n    return r * r\n\narea = lambda r: pi * helper(r)",
        "from __future__ import annotations\n\ndef area(r: Radius):\n    return pi * r * r",
        "import math\n\ndef  area(r):\n    '''Area.'''\n    return math.pi * r ** 2",
    ],
)
def test_code_continues_the_setup_or_follows_it(code):
    assert run(Program(code, PROMPT, "area"))["area"](2) == pytest.approx(12.566370614359172)


def test_a_name_that_is_only_spoken_of_is_no_definition():
    code = "    helper = area_of = 1  # def area\n    return r\n"
    assert run(Program(code, PROMPT, "area"))["area"](3) == 3


def test_without_an_entry_point_code_always_follows_the_setup():
    assert run(Program("y = x + 1", "x = 1"))["y"] == 2


def test_without_a_setup_code_is_all_there_is():
    assert Program("    pass", "", "f").source == "    pass"
