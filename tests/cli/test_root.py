import importlib.metadata
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from guerdon.cli import app
from guerdon.core.errors import GuerdonError, SpecError, TooManyAbstentions


def test_the_version_is_that_of_the_package(guerdon):
    assert guerdon("--version").stdout == f"guerdon {importlib.metadata.version('guerdon')}\n"


def test_without_a_command_there_is_help(guerdon):
    result = guerdon()
    assert result.exit_code == 0
    assert result.stdout == guerdon("--help").stdout
    for command in ("score", "check", "systems"):
        assert command in result.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["check", "--help"]])
def test_help_says_what_exit_codes_mean(guerdon, arguments):
    text = " ".join(guerdon(*arguments).stdout.split())
    for code in ("0 done", "1 unexpected", "2 bad usage", "3 stopped because too many", "130 interrupted"):
        assert code in text


@pytest.mark.parametrize("arguments", [["scores"], ["score"], ["--no-such-option"], ["systems", "--sort"]])
def test_bad_usage_exits_with_2(guerdon, arguments):
    assert guerdon(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GuerdonError("column [b]x[/b]\ud800"), 2),
        (SpecError("no such part"), 2),
        (TooManyAbstentions("7 of 8"), 3),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("a bug"), 1),
    ],
)
def test_errors_are_told_by_message_and_exit_code(monkeypatch, error, code):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("typer.core.TyperGroup.invoke", fail)
    result = CliRunner().invoke(app, ["systems"])
    assert result.exit_code == code
    if code in (2, 3):
        assert result.stderr == f"guerdon: {str(error).replace(chr(0xD800), chr(92) + 'ud800')}\n"


@pytest.mark.processes
def test_help_and_version_import_nothing_heavy():
    code = """
import sys
from guerdon.cli import app
for arguments in (["--version"], ["--help"], ["score", "--help"], ["check", "--help"]):
    app(arguments, standalone_mode=False)
print("heavy:", sorted({"torch", "transformers", "numpy", "pyarrow", "yaml", "sympy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.endswith("heavy: []\n")
