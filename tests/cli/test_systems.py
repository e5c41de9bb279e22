import json
import re

import pytest

from guerdon.catalog import load


@pytest.fixture
def rows(guerdon):
    def read(*arguments):
        return json.loads(guerdon("systems", "--json", *arguments).stdout)

    return read


def test_json_has_a_row_for_each_system(rows):
    found = rows()
    assert [row["n"] for row in found] == list(range(261))
    assert set(found[0]) == {"n", "name", "title", "rooms", "status", "parts", "proof", "differs"}
    assert found[260]["name"] == "LUSPO"
    assert found[260]["parts"][0] == "credit.group_relative"


def test_the_list_has_each_system_once_under_its_first_room_with_right_counts(guerdon):
    listed: dict[str, list[int]] = {}
    headings = {}
    for line in guerdon("systems").stdout.splitlines():
        if heading := re.match(r"(\w+)  (\d+) systems?: (\d+) complete, (\d+) partial, (\d+) none", line):
            headings[heading[1]] = [int(count) for count in heading.groups()[1:]]
        elif row := re.match(r" +(\d+)  .*(complete|partial|none)", line):
            listed.setdefault(list(headings)[-1], []).append(int(row[1]))
    systems = load()
    whole = headings.pop("all")
    expected = {room: [s.n for s in systems if s.rooms[0] == room] for room in {system.rooms[0] for system in systems}}
    assert listed == expected
    assert {room: counts[0] for room, counts in headings.items()} == {k: len(v) for k, v in expected.items()}
    assert whole[0] == 261
    assert [sum(counts) for counts in zip(*headings.values(), strict=True)] == whole
    assert headings["objectives"][2] == sum(s.status == "partial" and s.rooms[0] == "objectives" for s in systems)


def test_a_room_has_all_systems_with_parts_in_it(rows):
    assert {row["n"] for row in rows("--room", "shaping")} == {s.n for s in load() if "shaping" in s.rooms}


def test_a_status_chooses(rows):
    chosen = rows("--status", "complete", "--room", "objectives")
    assert 260 in {row["n"] for row in chosen}
    assert {row["status"] for row in chosen} == {"complete"}


def test_one_system_in_any_case(guerdon, rows):
    shown = guerdon("systems", "luspo").stdout
    for text in ("LUSPO (260)", "Length-Unbiased", "objectives, shaping", "credit.group_relative", "::test_luspo_is"):
        assert text in shown
    assert [row["n"] for row in rows("luspo")] == [260]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["luspoo"], "there is no system 'luspoo': did you mean 'LUSPO'"),
        (["--room", "shapings"], "--room: there is no 'shapings': did you mean 'shaping'?"),
        (["--status", "done"], "--status: there is no 'done': did you mean 'none'?"),
        (["luspo", "--room", "credit"], "leave them out"),
    ],
)
def test_what_is_not_there_gets_the_nearest(guerdon, arguments, message):
    result = guerdon("systems", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
