import pytest
import torch

from guerdon.credit import fit_steps, grounded_rewards, latent_factors, sample_steps, sampled_loss, sum_loss


def everywhere(*shape):
    return torch.ones(*shape, dtype=torch.bool)


def test_lare_worked_example_the_plain_loss_is_too_high_and_the_corrected_one_is_not():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(20, generator=generator, dtype=torch.float64)
    total = rewards.sum() - 20 * 0.0333**0.5  # so that the loss of the whole is 0.0333
    rows = 100_000
    mask = everywhere(1, 20).expand(rows, 20)
    steps, drawn = sample_steps(mask, 5, generator=generator)
    chosen, lengths = rewards[steps], torch.full((rows,), 20)
    totals = total.expand(rows)
    plain = float(sampled_loss(chosen, totals, lengths, drawn))
    corrected = float(sampled_loss(chosen, totals, lengths, drawn, unbiased=True))
    excess = float(rewards.var()) / 5 * (1 - 5 / 20)
    assert corrected == pytest.approx(0.0333, rel=0.02)
    assert plain == pytest.approx(0.0333 + excess, rel=0.02)


def test_lare_corrected_loss_is_its_definition_row_by_row():
    rewards = torch.tensor([[0.5, 1.5, 1.0], [2.0, torch.nan, torch.nan], [1.0, 2.0, 1.0], [torch.nan] * 3])
    mask = torch.tensor([[True] * 3, [True, False, False], [True] * 3, [False] * 3])
    totals, lengths = torch.tensor([8.0, 3.0, 4.0, torch.nan]), torch.tensor([10, 4, 2, 5])
    variance = [0.25, 0.0, 1 / 3]
    rows = [
        (0.8 - 1.0) ** 2 - (1 - 3 / 10) * variance[0] / 3,
        (0.75 - 2.0) ** 2,  # one draw: no variance
        (2.0 - 4 / 3) ** 2 - variance[2] / 3,  # more draws than steps: with replacement
    ]
    found = sampled_loss(rewards, totals, lengths, mask, unbiased=True)
    assert float(found) == pytest.approx(sum(rows) / 3)


def test_lare_steps_are_drawn_without_replacement_where_there_are_enough():
    mask = torch.tensor([[True, False, True, True], [False, False, True, False], [False] * 4])
    steps, drawn = sample_steps(mask.repeat(200, 1), 3, generator=torch.Generator().manual_seed(0))
    assert drawn[::3].all()
    assert not drawn[2::3].any()
    assert all(sorted(row) == [0, 2, 3] for row in steps[::3].tolist())
    assert (steps[1::3] == 2).all()
    first = torch.bincount(steps[::3, 0], minlength=4) / 200
    assert first[1] == 0
    assert (first[[0, 2, 3]] > 0.2).all()


def test_lare_a_decoder_on_latent_factors_beats_one_on_raw_states():
    generator = torch.Generator().manual_seed(0)
    n, s = 60, 12
    states = torch.randn(n, s, 52, generator=generator)
    actions = torch.zeros(n, s, 1)
    truth = 1.0 * states[:, :, 0] - 0.5 * states[:, :, 1]
    totals, mask = truth.sum(1), everywhere(n, s)
    factors = latent_factors(lambda x, _: [x[:, :1], x[:, 1:2]], states, actions, mask)
    errors = []
    for features, hidden in ((factors, ()), (states, (32,))):
        model = fit_steps(features, totals, mask, hidden=hidden, samples=6, unbiased=True, updates=300, lr=0.02)
        with torch.no_grad():
            errors.append(float(((model(features)[:, :, 0] - truth) ** 2).mean()))
    assert errors[0] < 0.2 * errors[1]


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (lambda s, a: 1 / 0, "phi failed on 2 steps: ZeroDivisionError"),
        (lambda s, a: s, "must return a list of arrays"),
        (lambda s, a: [], "must return a list of arrays"),
        (lambda s, a: [s[:, :1], s[:, 0]], r"factor 1 must be \(2, 1\), got \(2,\)"),
        (lambda s, a: [s[:, :1] / 0], "factor 0 is not finite at step 0"),
        (lambda s, a: [["x"], ["y"]], "factor 0 is not an array of numbers"),
    ],
    ids=["raises", "no list", "empty", "shape", "infinite", "text"],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_lare_factors_are_verified(phi, message):
    with pytest.raises(ValueError, match=message):
        latent_factors(phi, torch.ones(1, 2, 3), torch.zeros(1, 2, 1), everywhere(1, 2))


def test_lare_steps_that_do_not_exist_are_not_shown():
    shown = []

    def phi(states, actions):
        shown.append(states.shape)
        return [states[:, :1] + actions]

    states = torch.tensor([[[1.0], [torch.nan]]])
    found = latent_factors(phi, states, torch.ones(1, 2, 1), torch.tensor([[True, False]]))
    assert shown == [(1, 1)]
    assert found.tolist() == [[[2.0], [0.0]]]


def test_spa_sums_alone_tell_what_each_kind_of_step_gains():
    generator = torch.Generator().manual_seed(0)
    gains = torch.rand(10, generator=generator)
    kinds = torch.randint(0, 10, (500, 8), generator=generator)
    mask = torch.arange(8) < torch.randint(1, 9, (500, 1), generator=generator)
    features = torch.nn.functional.one_hot(kinds, 10).float()
    totals = torch.where(mask, gains[kinds], 0).sum(1)
    model = fit_steps(features, totals, mask, updates=600, lr=0.02)
    with torch.no_grad():
        attributed = torch.where(mask, model(features)[:, :, 0], 0)
        learned = model(torch.eye(10))[:, 0]
    assert float(torch.corrcoef(torch.stack([learned, gains]))[0, 1]) > 0.95
    torch.testing.assert_close(attributed.sum(1), totals, atol=0.05, rtol=0)
    assert float(sum_loss(attributed, totals, mask)) < 1e-3


def test_spa_constant_features_share_the_return_equally():
    mask = everywhere(3, 4)
    model = fit_steps(torch.ones(3, 4, 1), torch.full((3,), 2.0), mask, updates=400, lr=0.05)
    with torch.no_grad():
        found = grounded_rewards(model(torch.ones(3, 4, 1))[:, :, 0], mask, mask, beta=0.0)
    torch.testing.assert_close(found, torch.full((3, 4), 0.5), atol=1e-3, rtol=0)


def test_spa_the_loss_of_sums_passes_one_gradient_to_all_steps():
    rewards = torch.tensor([[0.25, 0.5, torch.nan], [1.0, 1.0, 1.0]], requires_grad=True)
    mask = torch.tensor([[True, True, False], [False] * 3])
    loss = sum_loss(rewards, torch.tensor([1.0, torch.nan]), mask)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0.0625)
    assert rewards.grad.tolist() == [[-0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]


def test_fits_repeat_and_leave_the_global_generator_alone():
    features, totals = torch.randn(4, 3, 2), torch.randn(4)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two = (fit_steps(features, totals, everywhere(4, 3), hidden=(4,), samples=2, updates=3) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one(features), two(features))


def test_bad_decompositions_are_named():
    with pytest.raises(ValueError, match="row 0 has draws and no steps"):
        sampled_loss(torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, dtype=torch.long), everywhere(1, 1))
    with pytest.raises(ValueError, match="features must be"):
        fit_steps(torch.zeros(1, 2), torch.zeros(1), everywhere(1, 2))
    with pytest.raises(ValueError, match="count at least 1"):
        sample_steps(everywhere(1, 2), 0)
    with pytest.raises(ValueError, match="one number per row"):
        sum_loss(torch.zeros(1, 2), torch.zeros(2), everywhere(1, 2))
