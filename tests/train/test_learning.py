"""The update of a step, against the gradient of its equation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from guerdon.core import Rollouts, Scores, Tokens
from guerdon.train.language.learning import Experience, learn
from guerdon.train.language.loop import _experience
from guerdon.train.language.policy import build

ADVANTAGES = torch.tensor([1.5, -0.5, 0.0, -2.0])
LENGTHS = torch.tensor([5, 2, 4, 3])
BETA = 0.3


def experience():
    generator = torch.Generator().manual_seed(0)
    there = torch.arange(5) < LENGTHS[:, None]
    return Experience(
        prompt_ids=torch.randint(3, 15, (4, 3), generator=generator),
        prompt_mask=torch.ones(4, 3, dtype=torch.bool),
        ids=torch.where(there, torch.randint(3, 15, (4, 5), generator=generator), 0),
        attended=there,
        mask=there,
        advantages=ADVANTAGES,
        ref_logp=-2 - torch.rand(4, 5, generator=generator),
    )


def expected_gradients(policy, data, beta):
    """Row by row: the mean over rows of the mean over tokens of β(eᵈ − d − 1) − A · π/π_old, d = ref − logp."""
    total = 0.0
    for i, length in enumerate(LENGTHS.tolist()):
        sequence = torch.cat([data.prompt_ids[i], data.ids[i, :length]])[None]
        logits = policy(sequence).logits[0, 2:-1].log_softmax(-1)
        logp = logits.gather(-1, data.ids[i, :length, None])[:, 0]
        d = data.ref_logp[i, :length] - logp
        terms = beta * (d.exp() - d - 1) - ADVANTAGES[i] * (logp - logp.detach()).exp()
        total = total + terms.mean() / len(LENGTHS)
    weights = [p for p in policy.parameters() if p.requires_grad]
    return total.item(), torch.autograd.grad(total, weights)


@pytest.mark.parametrize("beta", [0.0, BETA])
@pytest.mark.parametrize("micro", [1, 3, 64])
def test_an_update_follows_the_gradient_of_the_equation(tiny, beta, micro):
    recipe = tiny(
        method={"preset": "grpo", "kl": {"coefficient": beta}}, batch={"micro": micro}, optimizer={"max_grad_norm": 0.0}
    )
    policy, _ = build(recipe.policy, seed=1)
    data = experience()
    loss, gradients = expected_gradients(policy, data, beta)
    before = [p.detach().clone() for p in policy.parameters()]
    accelerator = Accelerator(cpu=True)
    model, optimizer = accelerator.prepare(policy, torch.optim.SGD(policy.parameters(), lr=1.0))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer.optimizer, lambda _: 1.0)
    metrics = learn(data, recipe, recipe.load_method(), model, optimizer, schedule, accelerator, step=1)
    assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
    for old, new, gradient in zip(before, policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - new.detach(), gradient, rtol=1e-4, atol=1e-6)


def test_an_abstained_row_is_not_learned_from_at_all(tiny):
    _, tokenizer = build(tiny().policy, seed=0)
    written = np.array([[True, True, False], [True, True, True]])
    rollouts = Rollouts(["1+1=", "2+2="], ["22", "444"], tokens=Tokens(np.full((2, 3), 4), written, written))
    scores = Scores.of([1.0, None], reasons={1: "no reference"})
    data = _experience(SimpleNamespace(tokenizer=tokenizer), rollouts, scores, np.array([0.7, 0.0]))
    assert data.mask.tolist() == [[True, True, False], [False, False, False]]
    assert data.attended.tolist() == written.tolist()
