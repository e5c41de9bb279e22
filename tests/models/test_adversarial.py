"""The co-trained reward: its losses by hand, what it refuses, and a policy that it leads to the references."""

import math

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts
from guerdon.core.errors import GuerdonError
from guerdon.credit import group_relative
from guerdon.models import MatchHead, TokenHead, adversarial_reward, hinge_loss, preference_loss, realism
from guerdon.objectives import policy_gradient


def batch_of(samples, references, **columns):
    n = len(samples)
    return Rollouts(["p"] * n, [""] * n, {"x": list(samples), "reference": list(references), **columns})


def leaf(**options):
    return adversarial_reward(column="x", hidden=0, **options)


def test_adv_grpo_worked_hinge():
    real, fake = torch.tensor([0.5, 2.0], requires_grad=True), torch.tensor([-0.5, 0.3], requires_grad=True)
    assert hinge_loss(real, fake).item() == pytest.approx(0.575)
    real, fake = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([-1.5, -1.01], requires_grad=True)
    loss = hinge_loss(real, fake)
    loss.backward()
    assert loss.item() == 0
    assert not real.grad.any()
    assert not fake.grad.any()


def test_adv_grpo_reward_weighs_class_and_patches():
    logits = torch.tensor([[2.0, 1.0, 5.0, 9.0]])
    assert realism(logits).item() == pytest.approx(0.7 * 2 + 0.3 * 5)
    assert realism(logits, chosen=torch.tensor([[0, 2]])).item() == pytest.approx(0.7 * 2 + 0.3 * 5)
    assert realism(logits, chosen=torch.tensor([[0]])).item() == pytest.approx(0.7 * 2 + 0.3 * 1)
    assert realism(logits[:, :1]).item() == 2.0


def test_adv_grpo_loss_weighs_patches_by_a_weight_of_its_own():
    head = TokenHead(1, hidden=0)
    with torch.no_grad():
        head.layers[0].weight.fill_(1.0)
        head.layers[0].bias.zero_()
    batch = batch_of([[[-0.5], [0.4], [-3.0]]], [[[0.5], [2.0], [0.0]]])
    part = leaf(head=head, normalize=False, updates=1, patch=0.2, patch_loss=0.5)
    assert part.measure(batch, Context(batch)).read(0.0) == pytest.approx([-0.8 * 0.5 + 0.2 * (0.4 - 3.0) / 2])
    classes, patches = 0.5 * (0.5 + 0.5), 0.5 * (1.0 / 2 + 1.4 / 2)
    assert part.update(batch, None, Context(batch))["loss"] == pytest.approx(classes + 0.5 * patches)
    part.update(batch, None, Context(batch))
    assert part.version == "2"


def test_adv_grpo_a_preference_is_of_a_rollout_and_its_own_reference():
    head = TokenHead(1, hidden=0)
    with torch.no_grad():
        head.layers[0].weight.fill_(1.0)
        head.layers[0].bias.zero_()
    batch = batch_of([[9.0], [1.0], [math.nan], [0.5]], [None, [2.0], [7.0], [0.0]])
    part = leaf(head=head, normalize=False, loss="preference", updates=1)
    expected = (math.log1p(math.exp(1.0 - 2.0)) + math.log1p(math.exp(0.5 - 0.0))) / 2
    assert part.update(batch, None, Context(batch))["loss"] == pytest.approx(expected)


def trained(freeze=10**9, steps=120, n=64):
    generator = torch.Generator().manual_seed(0)
    mean = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([mean], lr=0.1)
    part = leaf(normalize=False, updates=5, learning_rate=0.3)
    path = []
    for step in range(steps):
        x = (mean + torch.randn(n, 2, generator=generator)).detach()
        batch = batch_of(x.numpy(), (3 + torch.randn(n, 2, generator=generator)).numpy())
        context = Context(batch, step=step, training=True)
        scores = part.measure(batch, context)
        if step < freeze:
            part.update(batch, scores, context)
        advantages = group_relative(torch.as_tensor(scores.read(0.0)), torch.zeros(n, dtype=torch.long))
        logp = (-0.5 * (x - mean) ** 2).sum(1, keepdim=True)
        loss, _ = policy_gradient(logp, logp.detach(), advantages, torch.ones(n, 1, dtype=torch.bool))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        path.append(mean.detach().clone())
    return torch.stack(path)


def test_adv_grpo_a_reward_that_learns_leads_to_the_references():
    assert (trained()[-60:].mean(0) - 3).abs().max() < 0.3


def test_adv_grpo_a_reward_that_stands_still_is_exploited():
    assert trained(freeze=20)[-1].min() > 6  # twice as far out and still going: the head never learns that


def test_adv_grpo_gate_stops_where_references_already_win():
    head = TokenHead(1, hidden=0)
    with torch.no_grad():
        head.layers[0].weight.fill_(1.0)
        head.layers[0].bias.zero_()
    part = leaf(head=head, gate=True, normalize=False, loss="preference", learning_rate=0.1, updates=200)
    winning = batch_of([[0.0]] * 4, [[1.0]] * 4)
    assert part.update(winning, None, Context(winning))["steps"] == 0
    assert part.version == "0"
    losing = batch_of([[1.0]] * 4, [[0.0]] * 4)
    report = part.update(losing, None, Context(losing))
    assert 0 < report["steps"] < 200
    assert report["gap"] >= 0
    assert (
        leaf(head=head, normalize=False, loss="preference", updates=3).update(winning, None, Context(winning))["steps"]
        == 3
    )


def test_adv_grpo_last_layer_of_a_matching_model():
    """scale · cos(W x, c) by hand, and one step that raises references over samples."""
    weight = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    part = adversarial_reward(
        column="x", head=MatchHead(weight, scale=10.0), condition="text", loss="preference", gate=True, normalize=False,
        updates=1, learning_rate=0.05,
    )  # fmt: skip
    samples, references = np.array([[1.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 1.0], [1.0, 1.0]])
    batch = batch_of(samples, references, text=[[1.0, 0.0], [1.0, 0.0]])
    scores = part.measure(batch, Context(batch))
    assert scores.read(0.0) == pytest.approx([10 / math.sqrt(5), 10.0], rel=1e-6)
    first = part.update(batch, scores, Context(batch))
    expected = np.mean([np.log1p(np.exp(10 / math.sqrt(5) - 0)), np.log1p(np.exp(10 - 10 / math.sqrt(5)))])
    assert first["loss"] == pytest.approx(expected, rel=1e-5)
    assert part.update(batch, scores, Context(batch))["loss"] < first["loss"]
    patched = MatchHead(weight, scale=10.0)(torch.tensor([[[1.0, 0.0], [0.0, 9.0]]]), torch.tensor([[1.0, 0.0]]))
    assert patched.tolist() == [[10.0]]  # of the class token alone
    assert preference_loss(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(math.log(2))
    with pytest.raises(ValueError, match="condition"):
        MatchHead(weight)(torch.zeros(1, 1, 2), None)


def test_patches_are_drawn_by_seed_and_step_and_tokens_have_length_1():
    generator = np.random.default_rng(0)
    samples, references = (generator.normal(size=(3, 9, 4)) for _ in range(2))
    batch = batch_of(samples, references)
    part = adversarial_reward(column="x", patches=2, hidden=8)
    found = [part.measure(batch, Context(batch, step=step)).read(0.0) for step in (0, 0, 1)]
    assert found[0].tolist() == found[1].tolist()
    assert found[0].tolist() != found[2].tolist()
    longer = batch_of(5 * samples, references)
    assert part.measure(longer, Context(longer)).read(0.0) == pytest.approx(found[0], rel=1e-5)


def test_what_was_learned_is_restored():
    batch = batch_of([[0.0], [0.5]], [[3.0], [4.0]])
    part = leaf(normalize=False, learning_rate=0.1)
    part.update(batch, None, Context(batch))
    other = leaf(normalize=False, learning_rate=0.1)
    other.load_state_dict(part.state_dict())
    assert other.version == part.version == "9"
    for one in (part, other):
        one.update(batch, None, Context(batch))
    assert (
        other.measure(batch, Context(batch)).read(0.0).tolist()
        == part.measure(batch, Context(batch)).read(0.0).tolist()
    )


def test_a_row_without_tokens_abstains_and_one_without_reference_is_still_a_sample():
    batch = batch_of([[0.0], None, [math.nan]], [None, [1.0], [2.0]])
    part = leaf(normalize=False, updates=1)
    scores = part.measure(batch, Context(batch))
    assert scores.valid.tolist() == [True, False, False]
    assert scores.reasons == {1: "nothing to encode", 2: "the tokens are not finite"}
    assert part.update(batch, scores, Context(batch))["steps"] == 1
    nothing = batch_of([[0.0]], [None])
    assert part.update(nothing, scores, Context(nothing))["steps"] == 0
    with pytest.raises(GuerdonError, match="one shape"):
        part.measure(batch_of([[0.0], [1.0, 2.0]], [None, None]), Context())


@pytest.mark.parametrize(
    "options", [{"loss": "other"}, {"patch": 1.5}, {"updates": 0}, {"learning_rate": 0.0}, {"patches": -1}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="got"):
        leaf(**options)


def test_adv_grpo_reads_the_tokens_of_a_dino_of_the_real_class(tmp_path):
    """A DINOv2 with random weights, saved, loaded, read; the head tells black pictures from white ones."""
    from transformers import (
        BitImageProcessor,
        Dinov2Config,
        Dinov2Model,
        Dinov2WithRegistersConfig,
        Dinov2WithRegistersModel,
    )

    from guerdon.rewards.embedding import token_encoder

    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    Dinov2Model(Dinov2Config(**small)).save_pretrained(tmp_path)
    reader = BitImageProcessor(size={"height": 28, "width": 28}, do_center_crop=False, do_resize=True)
    reader.save_pretrained(tmp_path)
    encoder = token_encoder(str(tmp_path))
    black, white = np.zeros((28, 28, 3), np.uint8), np.full((28, 28, 3), 255, np.uint8)
    assert encoder([black, white]).shape == (2, 1 + 4, 16)
    batch = Rollouts(["p"] * 2, [""] * 2, {"image": [black, white], "real": [white, white]})
    part = adversarial_reward(
        encoder=encoder, column="image", references="real", patches=2, updates=30, learning_rate=0.01, hidden=16
    )
    part.update(batch, None, Context(batch))
    dark, bright = part.measure(batch, Context(batch)).read(0.0)
    assert bright > dark
    with pytest.raises(GuerdonError, match="no picture"):
        encoder(["nonsense"])
    model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**small, num_register_tokens=3)).eval()
    model.save_pretrained(tmp_path / "more")
    reader.save_pretrained(tmp_path / "more")
    with torch.no_grad():
        states = model(**reader([white], return_tensors="pt")).last_hidden_state
    torch.testing.assert_close(token_encoder(str(tmp_path / "more"))([white]), states[:, [0, 4, 5, 6, 7]])
    with pytest.raises(GuerdonError, match="cannot be loaded"):
        token_encoder(str(tmp_path / "nowhere"))
