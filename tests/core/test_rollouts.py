from __future__ import annotations

import gzip
import json
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from guerdon.core import GuerdonError, MissingInput, Rollouts, Tokens, Trajectory, Tree
from guerdon.core.rollouts import read_jsonl

CALL = [
    {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": {"name": "add", "arguments": "{}"}}]},
    {"role": "tool", "tool_call_id": "a", "content": "4"},
    {"role": "assistant", "content": [{"type": "text", "text": "It is 4."}]},
]


def batch(n=3, **fields):
    return Rollouts([f"p{i}" for i in range(n)], [f"c{i}" for i in range(n)], **fields)


# Identity and groups


def test_consecutive_rollouts_of_equal_prompts_are_a_group():
    rollouts = Rollouts(["a", "a", "b", "a"], [""] * 4)
    assert rollouts.groups.tolist() == [0, 0, 1, 2]
    assert rollouts.ids[0] == rollouts.ids[1] == rollouts.ids[3] != rollouts.ids[2]
    assert rollouts.finished.all()


def test_ids_are_of_the_prompt_whatever_it_is():
    def identity(prompt):
        return Rollouts([prompt], [""]).ids[0]

    chat = [{"role": "user", "content": "2+2"}]
    assert identity(chat) == identity([dict(reversed(chat[0].items()))])
    assert identity(chat) != identity([{"role": "user", "content": "2+3"}])
    assert identity("\ud800") != identity("\ud801")
    images = [np.zeros((2, 2)), np.zeros(4), np.ones((2, 2)), np.zeros((2, 2), np.float32)]
    assert len({identity([{"image": image}]) for image in images}) == 4
    assert identity([{"image": np.zeros(4)}]) == identity([{"image": np.zeros(4)}])
    # Two long tensors have the same text.
    ramp = torch.arange(5000.0)
    assert identity({"image": ramp}) != identity({"image": ramp * torch.where(ramp == 2500, 2, 1)})
    assert identity({"image": torch.zeros(2, dtype=torch.bfloat16)})


def test_given_groups_are_kept_and_labels_are_counted():
    assert batch(3, groups=[5, 5, 2]).groups.tolist() == [5, 5, 2]
    assert batch(3, groups=torch.tensor([5, 5, 2])).groups.tolist() == [5, 5, 2]
    assert batch(3, groups=["x", "y", "x"]).groups.tolist() == [0, 1, 0]
    assert batch(2, groups=[0.2, 0.7]).groups.tolist() == [0, 1], "fractions are labels, not rounded into one group"
    with pytest.raises(ValueError, match=r"row 1: a group is a number or a text, got \[1\]"):
        batch(2, groups=["a", [1]])


def test_every_column_has_one_entry_per_rollout():
    for fields, name in [
        ({"columns": {"answer": ["1"]}}, "answer"),
        ({"ids": ["1"]}, "ids"),
        ({"groups": [0]}, "groups"),
        ({"finished": [True]}, "finished"),
        ({"tokens": Tokens(np.zeros((2, 1), int), np.ones((2, 1), bool), np.ones((2, 1), bool))}, "tokens"),
        ({"tree": Tree(np.array([-1]), np.array([0]))}, "tree"),
    ]:
        with pytest.raises(ValueError, match=f"'{name}' has [12] entries for 3 prompts"):
            batch(3, **fields)
    with pytest.raises(ValueError, match="'completions' has 1 entries for 2 prompts"):
        Rollouts(["a", "b"], ["c"])
    with pytest.raises(ValueError, match="column 'finished' has a field of its own"):
        batch(1, columns={"finished": [True]})


def test_a_batch_is_immutable_and_does_not_share_its_columns():
    columns = {"answer": ["1", "2", "3"]}
    rollouts = batch(3, columns=columns)
    columns["late"] = [1, 2, 3]
    assert not rollouts.has("late")
    with pytest.raises(FrozenInstanceError):
        rollouts.ids = []
    rollouts.with_(ids=["a", "b", "c"]).select([0])
    assert rollouts.ids == batch(3).ids


# Reading columns


def test_column_knows_fields_and_columns_and_says_what_there_is():
    rollouts = batch(2, columns={"answer": ["1", "2"]}, groups=[3, 4])
    assert rollouts.column("completion") == ["c0", "c1"]
    assert rollouts.column("group").tolist() == [3, 4]
    assert rollouts.column("answer") == ["1", "2"]
    assert rollouts.has("finished")
    assert not rollouts.has("tokens")
    with pytest.raises(MissingInput, match="column 'solution' is missing; the batch has: prompt, completion, answer"):
        rollouts.column("solution")


def test_lengths_count_what_the_policy_wrote():
    tokens = Tokens(
        np.zeros((2, 4), int),
        written=np.array([[True, False, True, False], [True, False, False, False]]),
        attended=np.array([[True, True, True, False], [True, False, False, False]]),
    )
    rollouts = Rollouts(["?", "?"], ["two  words", CALL], tokens=tokens)
    assert rollouts.lengths().tolist() == [2, 1]
    assert rollouts.lengths("characters").tolist() == [10, len("It is 4.")]
    assert rollouts.lengths("words").tolist() == [2, 3]
    with pytest.raises(MissingInput, match="use unit='characters' or 'words'"):
        batch().lengths()
    with pytest.raises(ValueError, match="got 'letters'"):
        rollouts.lengths("letters")


# Slicing and joining


@pytest.mark.parametrize(
    ("index", "rows"),
    [
        (slice(1, None), [1, 2]),
        ([2, 0, 2], [2, 0, 2]),
        (np.array([False, True, False]), [1]),
        (torch.tensor([True, False, True]), [0, 2]),
        ([-1], [2]),
        ([], []),
    ],
)
def test_select_takes_everything_along(index, rows):
    whole = Rollouts(
        ["a", "a", "b"],
        ["0", "1", "2"],
        {"answer": ("x", "y", "z"), "box": np.arange(6).reshape(3, 2)},
        finished=[True, False, True],
        tokens=Tokens(np.arange(6).reshape(3, 2), np.ones((3, 2), bool), np.ones((3, 2), bool), logp=-np.ones((3, 2))),
    )
    some = whole.select(index)
    assert some.completions == [str(row) for row in rows]
    assert some.columns["answer"] == [("x", "y", "z")[row] for row in rows]
    assert some.columns["box"].tolist() == [[2 * row, 2 * row + 1] for row in rows]
    assert some.groups.tolist() == [[0, 0, 1][row] for row in rows]
    assert some.ids == [whole.ids[row] for row in rows]
    assert some.finished.tolist() == [[True, False, True][row] for row in rows]
    assert some.tokens.ids[:, 0].tolist() == [2 * row for row in rows]
    assert len(whole) == 3


def test_select_of_trajectories():
    whole = Rollouts(["a", "b"], Trajectory(np.ones((2, 3), bool), rewards=np.arange(6.0).reshape(2, 3)))
    assert whole.select([1]).completions.rewards.tolist() == [[3.0, 4.0, 5.0]]
    with pytest.raises(ValueError, match="trajectories are not concatenated"):
        Rollouts.concat([whole, whole])


def test_a_selected_tree_points_to_rows_of_the_selection():
    #   0 ─ 1 ─ 3        2 is a root of its own
    tree = Tree(np.array([-1, 0, -1, 1]), np.array([0, 5, 0, 7]))
    some = batch(4, tree=tree).select([3, 1, 2]).tree
    assert some.parent.tolist() == [1, -1, -1]
    assert some.shared.tolist() == [7, 0, 0], "whose parent is left out is a root and shares nothing"


def test_groups_of_two_batches_never_meet():
    first, second = batch(3, groups=[7, 7, 2]), batch(2, groups=[2, 7])
    assert Rollouts.concat([first, second]).groups.tolist() == [1, 1, 0, 2, 3]
    assert Rollouts.concat([first, second], keep_groups=True).groups.tolist() == [7, 7, 2, 2, 7]
    with pytest.raises(ValueError, match="at least one batch"):
        Rollouts.concat([])


def test_concat_moves_trees_and_drops_what_some_lack():
    tree = Tree(np.array([-1, 0]), np.array([0, 3]))
    with_tree = batch(2, tree=tree, columns={"answer": ["1", "2"], "hint": ["h", "h"]})
    other = batch(2, columns={"answer": ["3", "4"]})
    assert Rollouts.concat([with_tree, with_tree]).tree.parent.tolist() == [-1, 0, -1, 2]
    assert Rollouts.concat([with_tree, with_tree]).tree.shared.tolist() == [0, 3, 0, 3]
    joined = Rollouts.concat([with_tree, other])
    assert joined.tree is None
    assert joined.columns == {"answer": ["1", "2", "3", "4"]}


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor], ids=["numpy", "torch"])
def test_tokens_are_padded_to_the_longest(kind):
    def tokens(width, **more):
        shape = (1, width)
        offsets = np.stack([np.arange(width), np.arange(width) + 1], -1)[None]
        return Tokens(
            kind(np.full(shape, 5)),
            kind(np.ones(shape, bool)),
            kind(np.ones(shape, bool)),
            offsets=kind(offsets),
            **more,
        )

    joined = Tokens.concat([tokens(1), tokens(3, entropy=kind(np.ones((1, 3))))])
    assert joined.ids.tolist() == [[5, 0, 0], [5, 5, 5]]
    assert joined.written.tolist() == [[True, False, False], [True, True, True]]
    assert joined.offsets.tolist()[0] == [[0, 1], [-1, -1], [-1, -1]], "padding is at no character, not at the first"
    assert joined.entropy is None, "known of one batch only"
    assert joined.written.dtype in (bool, torch.bool)


def test_token_fields_have_the_shape_of_the_ids():
    with pytest.raises(ValueError, match=r"logp has shape \(1, 3\), ids have \(1, 2\)"):
        Tokens(np.zeros((1, 2)), np.ones((1, 2), bool), np.ones((1, 2), bool), logp=np.zeros((1, 3)))


# Files and records


RECORDS = [
    {"id": "q1", "group": 0, "prompt": "2+2", "completion": "4", "finished": True, "answer": "4", "boxes": [[1], []]},
    {"id": "q1", "group": 0, "prompt": "2+2", "completion": "", "finished": False, "answer": None, "boxes": []},
    {"id": "q2", "group": 1, "prompt": [{"role": "user", "content": "add"}], "completion": CALL, "finished": True,
     "answer": 4, "boxes": [["a"]]},
    {"id": "q3", "group": 1, "prompt": "long", "completion": "x" * 100_000, "finished": True, "answer": ["4", 4],
     "boxes": None},
]  # fmt: skip


def test_records_come_back():
    assert Rollouts.from_records(RECORDS).to_records() == RECORDS


def test_parquet_comes_back(tmp_path):
    Rollouts.from_records(RECORDS).to_parquet(tmp_path / "r.parquet")
    assert Rollouts.from_parquet(tmp_path / "r.parquet").to_records() == RECORDS


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_json_lines_come_back(tmp_path, name):
    text = "\ufeff" + "\n\n".join(json.dumps(r) for r in [*RECORDS, {**RECORDS[0], "completion": "\ud800"}]) + "\r\n"
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "wt", encoding="utf-8", newline="") as file:
        file.write(text)
    rollouts = Rollouts.from_jsonl(tmp_path / name)
    assert rollouts.to_records() == [*RECORDS, {**RECORDS[0], "completion": "\ud800"}]
    assert rollouts.finished.tolist() == [True, False, True, True, True]


def test_lone_surrogates_do_not_stop_a_batch_from_being_written(tmp_path):
    Rollouts(["a\ud800"], ["\udfff"]).to_parquet(tmp_path / "r.parquet")
    assert Rollouts.from_parquet(tmp_path / "r.parquet").completions == ["\ufffd"]


def test_an_empty_batch_comes_back(tmp_path):
    (tmp_path / "r.jsonl").write_text("")
    assert len(Rollouts.from_jsonl(tmp_path / "r.jsonl")) == 0
    Rollouts.from_records([]).to_parquet(tmp_path / "r.parquet")
    assert len(Rollouts.from_parquet(tmp_path / "r.parquet")) == 0


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"prompt": "a"}], "record 0 has no 'completion'; it has: prompt"),
        ([{"prompt": "a", "completion": "b", "x": 1}, {"prompt": "a", "completion": "b"}], "record 1 has no 'x'"),
        ([{"prompt": "a", "completion": "b", "group": None}], "row 0 has no 'group'"),
        ([{"prompt": "a", "completion": "b", "id": None}], "row 0 has no 'id'"),
        ([{"prompt": "a", "completion": "b", "finished": "false"}], "row 0: finished is true or false, got"),
    ],
)
def test_bad_records_are_named(records, message):
    with pytest.raises((MissingInput, ValueError), match=message):
        Rollouts.from_records(records)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"prompt": "a"}\n\n{"prompt": \n', r"r\.jsonl, line 3: not JSON \(Expecting value at column"),
        (b'{"a": 1}\n[1]\n', r"line 2: a list, expected an object"),
        (b'{"a": "\xff"}\n', r"line 1: not UTF-8"),
        (b"[" * 100_000, r"line 1: not readable"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, message):
    (tmp_path / "r.jsonl").write_bytes(content)
    with pytest.raises(GuerdonError, match=message):
        list(read_jsonl(tmp_path / "r.jsonl"))


def test_a_gzip_cut_short_is_named(tmp_path):
    whole = gzip.compress(b'{"prompt": "a", "completion": "b"}\n' * 1000)
    (tmp_path / "r.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(GuerdonError, match=r"r\.jsonl\.gz, after line \d+: broken gzip"):
        Rollouts.from_jsonl(tmp_path / "r.jsonl.gz")
    (tmp_path / "r.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(GuerdonError, match="after line 0: broken gzip"):
        Rollouts.from_jsonl(tmp_path / "r.jsonl.gz")


def test_a_table_without_completions_is_an_error_that_says_what_it_has(tmp_path):
    from guerdon.core.tables import write_parquet

    write_parquet(tmp_path / "r.parquet", {"prompt": ["a"], "answer": ["b"]})
    with pytest.raises(MissingInput, match=r"r\.parquet has no column 'completion'; it has: prompt, answer"):
        Rollouts.from_parquet(tmp_path / "r.parquet")


PROMPT = st.sampled_from(["a", "b", "c"])


@given(
    st.lists(st.lists(st.tuples(PROMPT, st.text(max_size=3)), min_size=1, max_size=6), min_size=1, max_size=4),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_concat_and_select_agree_with_lists(batches, data):
    joined = Rollouts.concat([Rollouts(*map(list, zip(*pairs, strict=True))) for pairs in batches])
    flat = [(b, *pair) for b, pairs in enumerate(batches) for pair in pairs]
    assert [*zip(joined.prompts, joined.completions, strict=True)] == [(p, c) for _, p, c in flat]
    # Two rows share a group exactly if they are of one batch and no other prompt stands between them.
    for i, (first, prompt, _) in enumerate(flat):
        for j in range(i, len(flat)):
            together = all(b == first and p == prompt for b, p, _ in flat[i : j + 1])
            assert (joined.groups[i] == joined.groups[j]) == together
    rows = data.draw(st.lists(st.integers(0, len(flat) - 1), max_size=6))
    assert joined.select(rows).completions == [flat[row][2] for row in rows]
    assert joined.select(rows).groups.tolist() == [joined.groups[row] for row in rows]
