import pytest
from hypothesis import given, strategies as st

from guerdon.cli import terminal


@given(st.text(st.characters(exclude_categories=[])), st.integers(10, 60))
def test_any_text_becomes_one_printable_line_of_the_width(text, width):
    line = terminal.shorten(text, width)
    assert line.isprintable()
    assert len(line) <= width
    line.encode("utf-8")


def test_what_is_printable_stays():
    assert terminal.printable("½ – naïve 数学 🙂 [red]") == "½ – naïve 数学 🙂 [red]"


def test_what_a_terminal_would_act_on_is_escaped():
    assert terminal.printable("\x1b[31m\u202eabc\r\x00") == "\\x1b[31m\\u202eabc\\r\\x00"
    assert terminal.printable("a\nb", newlines=True) == "a\nb"


def test_a_long_text_keeps_its_end():
    line = terminal.shorten("first " + "x" * 500 + " so the answer is 42", 60)
    assert line.startswith("first x")
    assert line.endswith("so the answer is 42")


def test_messages_are_told_with_their_roles():
    chat = [
        {"role": "user", "content": "hi\nthere"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]},
    ]
    assert terminal.shorten(chat) == "user: hi ↵ there assistant: {'tool_calls': [{'name': 'add'}]}"


def test_values_that_are_no_text():
    assert terminal.shorten(3) == "3"
    assert terminal.shorten([]) == "[]"
    assert terminal.shorten(None) == "None"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 µs"), (9.4e-4, "940 µs"), (0.5, "500 ms"), (1.0, "1.0 s"), (61, "61 s"), (125, "2 min 5 s")],
)
def test_durations(seconds, said):
    assert terminal.duration(seconds) == said


def test_json_has_no_numbers_that_json_has_not(capsys):
    terminal.print_json({"range": [float("-inf"), 1.5], "nan": float("nan"), "text": "\ud800é"})
    assert capsys.readouterr().out == (
        '{\n  "range": [\n    null,\n    1.5\n  ],\n  "nan": null,\n  "text": "\\ud800\\u00e9"\n}\n'
    )
