"""PISCES, joined: a learned map of texts to films and a transport of words to patches reward one policy."""

import pytest
import torch

from guerdon.credit import group_relative
from guerdon.models import TransportMap, fit_transport
from guerdon.objectives import policy_gradient
from guerdon.rewards import distribution, recorded
from guerdon.rewards.distribution import transported_match

SHIFT = torch.tensor([3.0, 0.0])
TEXT = torch.tensor([0.0, 1.0])  # of the whole text; the map sends it to about (3, 1)
WORDS = torch.eye(2)
TIMES, PLACES = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([[0.0], [1.0], [0.0], [1.0]])


@pytest.fixture(scope="module")
def mapping():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    def drawn():
        return torch.randn(64, 2, generator=generator), torch.randn(64, 2, generator=generator) + SHIFT

    mapping, potential = TransportMap(2, hidden=16), TransportMap(2, hidden=16, outputs=1)
    fit_transport(mapping, potential, iter(drawn, None), steps=100, map_steps=3, learning_rate=0.01)
    return mapping


def semantic(films):
    """R_s of films (n, 4 patches, 2): a head that asks whether each word sees a patch like itself."""
    words = WORDS.expand(len(films), -1, -1)
    attention = (2 * words @ torch.nn.functional.normalize(films, dim=-1).mT).softmax(-1)

    def matching(seen):
        likeness = torch.cosine_similarity(seen, words, dim=-1).amin(-1)
        return torch.stack([torch.zeros(len(films)), 8 * (likeness - 0.7)], -1)

    return transported_match(words, films, attention, TIMES, PLACES, matching=matching)


def learned(mapping, *, quality, match, rounds=28, n=64):
    """A Gaussian over the patches of a film, by groups of 8; the two rewards of its mean at the end."""
    both = (
        quality * distribution.exemplar(references="text", column="film", mapping=mapping).named("quality")
        + match * recorded.value(column="semantic").named("semantic")
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    mean = torch.zeros(4, 2).add(torch.tensor([-0.5, 0.5])).requires_grad_()
    optimizer, groups = torch.optim.Adam([mean], lr=0.08), torch.arange(n) // 8
    for _ in range(rounds):
        films = mean.detach() + 0.3 * torch.randn(n, 4, 2, generator=generator)
        columns = {
            "text": [TEXT.numpy()] * n,
            "film": list(films.mean(1).numpy()),
            "semantic": semantic(films).tolist(),
        }
        rewards = torch.tensor(both([""] * n, [""] * n, **columns))
        logp = (-((films - mean) ** 2).flatten(1).sum(1) / (2 * 0.3**2))[:, None]
        ones = torch.ones(n, 1, dtype=torch.bool)
        loss, _ = policy_gradient(logp, logp.detach(), group_relative(rewards, groups), ones)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    film = mean.detach()
    with torch.no_grad():
        near = torch.cosine_similarity(mapping(TEXT[None])[0], film.mean(0), dim=0).item()
    return near, semantic(film[None]).item()


def test_pisces_both_rewards_make_a_film_that_is_like_films_and_shows_its_words(mapping):
    """Quality alone shows what films show and not what the words say; the words alone end a little off, at .95."""
    near, shown = learned(mapping, quality=1.0, match=1.0)
    assert near > 0.97
    assert shown > 0.75
    assert learned(mapping, quality=1.0, match=0.0)[1] < shown - 0.3


def test_pisces_both_rewards_lead_by_their_gradient(mapping):
    """L = −R_q − R_s through the film; the transport is a constant."""
    film = torch.tensor([[-0.5, 0.5]] * 4).add(0.1 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
    film.requires_grad_()
    target = mapping(TEXT[None])[0].detach()
    optimizer = torch.optim.Adam([film], lr=0.05)

    def rewards():
        return torch.cosine_similarity(film.mean(0), target, dim=0), semantic(film[None])[0]

    start = [reward.item() for reward in rewards()]
    for _ in range(80):
        optimizer.zero_grad()
        (-sum(rewards())).backward()
        optimizer.step()
    end = [reward.item() for reward in rewards()]
    assert all(after > before + 0.3 for before, after in zip(start, end, strict=True))
    assert min(end) > 0.75
