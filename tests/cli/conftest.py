import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guerdon.cli import app


@pytest.fixture
def guerdon(monkeypatch):
    """Run a command in this process, with the rewards of `cli_parts` to import."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def jsonl(tmp_path):
    """Write rows to a file of JSON lines."""

    def write(rows, name="rollouts.jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path = tmp_path / name
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write
