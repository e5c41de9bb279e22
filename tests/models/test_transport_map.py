"""The learned map between spaces: its two losses by hand, and Gaussians that it brings onto one another."""

import pytest
import torch

from guerdon.models import TransportMap, fit_transport, map_loss, potential_loss
from guerdon.rewards import distribution


def test_the_two_losses_by_hand():
    y, x = torch.tensor([[0.0], [2.0]]), torch.tensor([[5.0]])
    double, triple = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        double.weight.fill_(2.0)
        triple.weight.fill_(3.0)
    assert map_loss(double, triple, y).item() == pytest.approx((0 + 4) / 2 - 3 * (0 + 4) / 2)
    loss = potential_loss(double, triple, y, x)
    assert loss.item() == pytest.approx(3 * 2 - 3 * 5)
    loss.backward()
    assert double.weight.grad is None
    assert triple.weight.grad.item() == pytest.approx(2 - 5)


def test_distances_are_squared_over_all_coordinates():
    """Each of two vectors is sent 3 and 4 away: 25, where a mean over coordinates were 12.5."""
    moved, nothing = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    with torch.no_grad():
        moved.weight.copy_(torch.eye(2))
        moved.bias.copy_(torch.tensor([3.0, 4.0]))
        nothing.weight.zero_()
        nothing.bias.fill_(0.5)
    assert map_loss(moved, nothing, torch.randn(2, 2)).item() == pytest.approx(24.5, rel=1e-5)


def test_pisces_map_brings_texts_to_films():
    """2-D Gaussians of means 0 and (3, 0), not paired: E T(y) → 3, and a mapped text is nearer to its film."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([3.0, 0.0])

    def drawn(n):
        return torch.randn(n, 2, generator=generator), torch.randn(n, 2, generator=generator) + mean

    mapping, potential = TransportMap(2, hidden=16), TransportMap(2, hidden=16, outputs=1)
    report = fit_transport(
        mapping, potential, iter(lambda: drawn(64), None), steps=100, map_steps=3, learning_rate=0.01
    )
    assert 5 < report["cost"] < 13  # of the map y + 3: 9
    texts, films = drawn(300)
    sent = mapping(texts).detach()
    assert (sent.mean(0) - mean).abs().max() < 0.5
    columns = {"seen": list(films.numpy()), "said": list(texts.numpy())}
    blank = (["?"] * 300, [""] * 300)
    plain = distribution.exemplar(references="said", column="seen")(*blank, **columns)
    mapped = distribution.exemplar(references="said", column="seen", mapping=mapping)(*blank, **columns)
    assert sum(plain) / 300 < 0.1 < 0.75 < sum(mapped) / 300
    expected = torch.cosine_similarity(sent[0], films[0], dim=0).item()
    assert mapped[0] == pytest.approx(expected, rel=1e-5)


def test_what_is_out_of_range_is_refused():
    with pytest.raises(ValueError, match="width"):
        TransportMap(0)
    mapping = TransportMap(1, hidden=2)
    with pytest.raises(ValueError, match="positive"):
        fit_transport(mapping, mapping, iter([]), steps=0)
    with pytest.raises(ValueError, match="lower learning_rate"):
        fit_transport(mapping, mapping, iter([(torch.full((1, 1), torch.inf), torch.zeros(1, 1))]), steps=1)
