import weakref

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from guerdon.objectives import chosen_logp


def plain(hidden, weight, ids, *, bias=None, temperature=1.0):
    """The definition, with the whole table of logits."""
    logits = hidden @ weight.T
    logits = (logits if bias is None else logits + bias) / temperature
    table = logits.log_softmax(-1)
    return table.gather(-1, ids[..., None])[..., 0], -(table.exp() * table).sum(-1)


def inputs(shape, width, vocabulary, *, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(*shape, width, generator=generator, dtype=dtype)
    weight = torch.randn(vocabulary, width, generator=generator, dtype=dtype)
    bias = torch.randn(vocabulary, generator=generator, dtype=dtype)
    return hidden, weight, torch.randint(vocabulary, shape, generator=generator), bias


def results(function, hidden, weight, ids, bias, upstream, **chosen):
    leaves = [x.clone().requires_grad_() for x in (hidden, weight, bias)]
    logp, entropy = function(leaves[0], leaves[1], ids, bias=leaves[2], **chosen)
    (upstream[0] * logp + upstream[1] * entropy).sum().backward()
    return logp.detach(), entropy.detach(), *(leaf.grad for leaf in leaves)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3), st.integers(0, 4), st.integers(1, 6), st.integers(1, 5), st.sampled_from([0.6, 1.0, 2.0]))
def test_values_and_gradients_are_those_of_the_whole_table(n, t, vocabulary, chunk, temperature):
    hidden, weight, ids, bias = inputs((n, t), 3, vocabulary, seed=n + 7 * t)
    upstream = torch.randn(2, n, t, dtype=torch.float64, generator=torch.Generator().manual_seed(t))
    ours = results(chosen_logp, hidden, weight, ids, bias, upstream, temperature=temperature, chunk=chunk)
    for found, expected in zip(
        ours, results(plain, hidden, weight, ids, bias, upstream, temperature=temperature), strict=True
    ):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("result", [0, 1], ids=["log-probability", "entropy"])
def test_gradients_of_each_result_alone(result):
    hidden, weight, ids, bias = inputs((5,), 3, 4)
    leaves = [x.requires_grad_() for x in (hidden, weight, bias)]
    assert torch.autograd.gradcheck(lambda h, w, b: chosen_logp(h, w, ids, bias=b, chunk=2)[result], leaves)


def test_single_precision_agrees_to_five_digits():
    hidden, weight, ids, bias = inputs((64,), 32, 500, dtype=torch.float32)
    upstream = torch.ones(2, 64)
    ours = results(chosen_logp, hidden, weight, ids, bias, upstream, chunk=10)
    for found, expected in zip(ours, results(plain, hidden, weight, ids, bias, upstream), strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max().clamp(min=1)


def test_bfloat16_weights_get_a_gradient_summed_in_float32():
    hidden, weight, ids, _ = inputs((512,), 8, 16, dtype=torch.bfloat16)
    weight.requires_grad_()
    logp, entropy = chosen_logp(hidden, weight, ids, chunk=1)
    assert logp.dtype == entropy.dtype == torch.float32
    logp.sum().backward()
    exact = weight.detach().double().requires_grad_()
    plain(hidden.double(), exact, ids)[0].sum().backward()
    # One token at a time, a sum in bfloat16 would stop growing at 2⁸ times a term.
    assert (weight.grad.double() - exact.grad).abs().max() < 0.02 * exact.grad.abs().max()


def test_an_impossible_token_has_no_part_in_the_entropy():
    hidden, weight = torch.ones(1, 1), torch.zeros(3, 1)
    bias = torch.tensor([0.0, 0.0, -torch.inf])
    logp, entropy = chosen_logp(hidden.requires_grad_(), weight, torch.tensor([0]), bias=bias)
    assert logp.item() == entropy.item() * -1 == pytest.approx(-0.693147, abs=1e-6)
    (logp + entropy).sum().backward()
    assert hidden.grad.isfinite().all()


def test_large_logits_stay_finite():
    hidden, weight, ids, bias = inputs((6,), 3, 5, dtype=torch.float32)
    for found in results(chosen_logp, 1e4 * hidden, weight, ids, bias, torch.ones(2, 6)):
        assert found.isfinite().all()


class Storage(TorchDispatchMode):
    """Bytes of the storages that live, and the most there were at once; those of before the start not counted."""

    def __init__(self):
        super().__init__()
        self.live, self.peak = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        known = {x.untyped_storage()._cdata for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        result = function(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in known:
                storage, size = x.untyped_storage(), x.untyped_storage().nbytes()
                self.live += size
                self.peak = max(self.peak, self.live)
                weakref.finalize(storage, self.free, size)
        return result

    def free(self, size):
        self.live -= size


@pytest.mark.parametrize("with_entropy", [False, True])
def test_peak_memory_is_a_quarter_of_the_plain_way_at_most(with_entropy):
    hidden, weight, ids, bias = inputs((1024,), 16, 4096, dtype=torch.float32)

    def peak(function, **chosen):
        leaves = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
        with Storage() as storage:
            logp, entropy = function(*leaves, ids, bias=bias, **chosen)
            (logp + (0.1 * entropy if with_entropy else 0.0)).sum().backward()
        return storage.peak

    table = 1024 * 4096 * 4
    whole = peak(plain)
    assert whole > 2 * table
    assert peak(chosen_logp, chunk=64) < 0.25 * whole


def test_what_does_not_fit_is_named():
    hidden, weight, ids, bias = inputs((2, 3), 4, 5)
    with pytest.raises(ValueError, match=r"do not fit: \(2, 3, 4\), \(5, 4\), \(2, 2\)"):
        chosen_logp(hidden, weight, ids[:, :2])
    with pytest.raises(ValueError, match=r"bias must be \(5,\)"):
        chosen_logp(hidden, weight, ids, bias=bias[:4])
    with pytest.raises(ValueError, match="temperature above 0"):
        chosen_logp(hidden, weight, ids, temperature=0.0)
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        chosen_logp(hidden, weight, ids, chunk=0)
