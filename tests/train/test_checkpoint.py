"""Checkpoints: whole, checked, and data only."""

import pickle

import pytest
import torch

from guerdon.train import checkpoint as checkpoints
from guerdon.train.checkpoint import Checkpoint, latest, restore, save, trainable_state


def make(step: int) -> Checkpoint:
    model = torch.nn.Linear(2, 3)
    torch.nn.init.constant_(model.weight, float(step))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return Checkpoint(
        step, dict(model.state_dict()), optimizer.state_dict(), {"0:leaf": {"v": torch.ones(2)}}, {"a": [1, 2]}
    )


def test_the_last_checkpoint_comes_back_as_it_was(tmp_path):
    saved = [make(step) for step in (1, 2, 3)]
    for checkpoint in saved:
        save(tmp_path, checkpoint, keep=2)
    found, broken = latest(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]
    assert broken == []
    assert (found.step, found.state) == (3, {"a": [1, 2]})
    assert torch.equal(found.reward["0:leaf"]["v"], torch.ones(2))
    assert all(torch.equal(found.weights[name], value) for name, value in saved[-1].weights.items())
    assert torch.equal(found.optimizer["state"][0]["exp_avg"], saved[-1].optimizer["state"][0]["exp_avg"])


@pytest.mark.parametrize(
    "file", ["weights.pt", "optimizer.pt", "reward.pt", "critic.pt", "state.json", "manifest.json"]
)
def test_a_checkpoint_cut_short_is_passed_over_with_a_word(tmp_path, file):
    for step in (1, 2):
        save(tmp_path, make(step), keep=2)
    path = tmp_path / "step-000002" / file
    path.write_bytes(path.read_bytes()[:-20])
    found, broken = latest(tmp_path)
    assert found.step == 1
    assert len(broken) == 1
    assert "step-000002" in broken[0]


def test_a_changed_byte_is_noticed(tmp_path):
    save(tmp_path, make(1), keep=1)
    path = tmp_path / "step-000001" / "weights.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    assert latest(tmp_path)[0] is None


def test_a_kill_while_writing_leaves_the_one_before(tmp_path, monkeypatch):
    save(tmp_path, make(1), keep=1)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.os, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, make(2), keep=1)
    monkeypatch.undo()
    assert latest(tmp_path)[0].step == 1
    save(tmp_path, make(2), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000002"]


def test_a_checkpoint_runs_no_code(tmp_path):
    save(tmp_path, make(1), keep=1)
    folder = tmp_path / "step-000001"

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    with (folder / "weights.pt").open("wb") as file:
        pickle.dump(Evil(), file)
    files = {p.name: checkpoints._fingerprint(p) for p in folder.iterdir() if p.name != "manifest.json"}
    (folder / "manifest.json").write_text(__import__("json").dumps(files))
    with pytest.raises(Exception, match=r"[Ww]eights"):
        latest(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_only_what_is_learned_is_kept_of_a_partly_frozen_model():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    assert set(trainable_state(model)) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    model[0].requires_grad_(False)
    weights = trainable_state(model)
    assert set(weights) == {"1.weight", "1.bias"}
    other = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    other[0].requires_grad_(False)
    restore(other, weights)
    assert torch.equal(other[1].weight, model[1].weight)


def test_weights_of_another_model_are_refused():
    with pytest.raises(ValueError, match="another model"):
        restore(torch.nn.Linear(2, 1), {"weight": torch.ones(1, 2)})
    with pytest.raises(ValueError, match="another model"):
        restore(torch.nn.Linear(2, 1), {**torch.nn.Linear(2, 1).state_dict(), "extra": torch.ones(1)})
