import math

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from guerdon.data import average_weights, merge_updates


def models(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"embed": (7, 3), "head": (5,), "empty": (0, 2)}
    base = {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}
    tuned = {
        name: (old.float() + 0.1 * torch.randn(old.shape, generator=generator)).to(dtype) for name, old in base.items()
    }
    return base, tuned


@pytest.mark.parametrize("over", ["tensor", "model"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_dler_merging_everything_is_the_tuned_model_and_nothing_the_base(over, dtype):
    base, tuned = models(dtype=dtype)
    everything, nothing = (merge_updates(base, tuned, share=share, scale=1.0, over=over) for share in (1.0, 0.0))
    for name in base:
        assert torch.equal(everything[name], tuned[name])
        assert torch.equal(nothing[name], base[name])
        assert everything[name].dtype == dtype


def test_dler_merging_everything_does_not_round():
    base, tuned = {"a": torch.tensor([1.0])}, {"a": torch.tensor([1e-10])}
    assert merge_updates(base, tuned, share=1.0, scale=1.0)["a"].item() == tuned["a"].item()


def test_dler_merging_worked_example():
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    tuned = {"a": torch.tensor([0.1, -2.0, 0.3, 1.0]), "b": torch.tensor([1.5, 1.2])}
    each = merge_updates(base, tuned, share=0.5, scale=0.7)
    assert each["a"].tolist() == pytest.approx([0, -1.4, 0, 0.7])
    assert each["b"].tolist() == pytest.approx([1.35, 1.0])
    whole = merge_updates(base, tuned, share=0.5, scale=0.7, over="model")
    assert whole["a"].tolist() == pytest.approx([0, -1.4, 0, 0.7])
    assert whole["b"].tolist() == pytest.approx([1.35, 1.0])
    third = merge_updates(base, tuned, share=1 / 3, scale=0.7, over="model")
    assert third["b"].tolist() == [1.0, 1.0]


@given(
    st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5, 0.9, 1.0]),
    st.sampled_from(["tensor", "model"]),
    st.floats(-2, 2),
    st.integers(0, 100),
)
def test_the_largest_updates_are_kept_and_as_many_as_the_share_says(share, over, scale, seed):
    base, tuned = models(seed)
    merged = merge_updates(base, tuned, share=share, scale=scale, over=over)

    def flat(state):
        return {name: state[name].double().numpy().ravel() for name in state}

    old, new, got = flat(base), flat(tuned), flat(merged)
    pools = [[name] for name in base] if over == "tensor" else [list(base)]
    for names in pools:
        delta = np.concatenate([new[n] - old[n] for n in names])
        count = math.ceil(share * len(delta) - 1e-9)
        largest = np.argsort(-np.abs(delta.astype(np.float32)), kind="stable")[:count]
        expected = np.concatenate([old[n] for n in names])
        expected[largest] += scale * delta[largest]
        assert np.concatenate([got[n] for n in names]) == pytest.approx(expected, abs=1e-5)


def test_the_models_given_are_left_alone():
    base, tuned = models()
    before = {name: old.clone() for name, old in base.items()}
    merge_updates(base, tuned)["embed"].add_(1.0)
    assert all(torch.equal(base[name], before[name]) for name in base)


@pytest.mark.parametrize(
    ("base", "tuned", "options", "message"),
    [
        ({"a": torch.zeros(1)}, {"b": torch.zeros(1)}, {}, "different entries: a, b"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(2)}, {}, r"'a' is torch.float32 \(1,\)"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1).half()}, {}, "and torch.float16"),
        ({"n": torch.tensor([1])}, {"n": torch.tensor([2])}, {}, "a count cannot be merged in part"),
        ({"a": torch.zeros(1)}, {"a": torch.tensor([math.nan])}, {}, "'a' has an update that is not finite"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1)}, {"share": 1.1}, "share lies between 0 and 1"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1)}, {"scale": math.inf}, "scale is finite"),
        ({"a": torch.zeros(1)}, {"a": torch.zeros(1)}, {"over": "layer"}, "over is 'tensor' or 'model'"),
    ],
    ids=["names", "shapes", "types", "counts", "nan", "share", "scale", "over"],
)
def test_bad_input_is_named(base, tuned, options, message):
    with pytest.raises(ValueError, match=message):
        merge_updates(base, tuned, **options)


def test_equal_counts_and_an_empty_model_are_no_harm():
    assert merge_updates({}, {}) == {}
    assert merge_updates({}, {}, over="model") == {}
    steps = {"n": torch.tensor([3])}
    assert merge_updates(steps, steps)["n"].tolist() == [3]


# The mean of several


@given(st.integers(1, 4), st.integers(0, 100), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_warm_is_the_weighted_mean_of_each_weight(count, seed, dtype):
    states = [models(seed + k, dtype)[0] for k in range(count)]
    shares = np.random.default_rng(seed).random(count) + 0.1
    merged = average_weights(states, weights=shares.tolist())
    for name, value in merged.items():
        expected = sum(s * state[name].double().numpy() for s, state in zip(shares, states, strict=True)) / shares.sum()
        assert value.dtype == dtype
        assert value.double().numpy() == pytest.approx(
            expected, rel=1e-2, abs=2e-2 if dtype == torch.bfloat16 else 1e-5
        )


def test_the_mean_of_one_model_is_that_model_and_a_new_one():
    (state, _) = models()
    merged = average_weights([state])
    for name, value in merged.items():
        assert torch.equal(value, state[name])
        assert not value.numel() or value.data_ptr() != state[name].data_ptr()


@pytest.mark.parametrize(
    ("states", "weights", "message"),
    [
        ([], None, "models are empty"),
        ([{"a": torch.zeros(1)}, {"b": torch.zeros(1)}], None, "different entries: a, b"),
        ([{"a": torch.zeros(1)}, {"a": torch.zeros(2)}], None, "'a' is torch.float32"),
        ([{"n": torch.tensor([1])}, {"n": torch.tensor([2])}], None, "a count has no mean"),
        ([{"a": torch.zeros(1)}], [1.0, 1.0], "one per model"),
        ([{"a": torch.zeros(1)}], [0.0], "not all 0"),
        ([{"a": torch.zeros(1)}] * 2, [2.0, -1.0], "not negative"),
        ([{"a": torch.zeros(1)}] * 2, [1.0, math.nan], "not all 0"),
    ],
    ids=["none", "names", "shapes", "counts", "number", "zero", "negative", "nan"],
)
def test_models_that_have_no_mean_are_named(states, weights, message):
    with pytest.raises(ValueError, match=message):
        average_weights(states, weights=weights)
