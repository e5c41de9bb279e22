from guerdon.cli import files


def test_rows_that_were_scored_before_are_not_scored_again(guerdon, jsonl, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CLI_PARTS_LOG", str(tmp_path / "log"))
    reward = ("--reward", "cli_parts.logged", "--allow-import", "--workers", 1)
    rows = [{"prompt": "?", "completion": str(i)} for i in range(6)]
    runs = {"first": (rows[:4], "--cache"), "again": (rows, "--cache"), "without": (rows[:2],)}
    for out, (some, *options) in runs.items():
        result = guerdon("score", jsonl(some), *reward, *options, "--out", tmp_path / f"{out}.jsonl")
        assert result.exit_code == 0, result.stderr
        assert files.read(tmp_path / f"{out}.jsonl")["score"] == [1.0] * len(some)
    assert (tmp_path / "log").read_text().split() == ["0", "1", "2", "3", "4", "5", "0", "1"]
