"""FLR from feedback to policy: a listener that is trained, pairs that it mines, and preferences that are learned."""

import math

import numpy as np
import pytest
import torch

from guerdon import Context, Rollouts
from guerdon.core.protocols import TokenLogprobs
from guerdon.data import preference_pairs
from guerdon.models import fit, implicit_loss, implicit_rewards, language_loss, listening, total
from guerdon.rewards import likelihood
from guerdon.train.language.models import LanguageModel
from guerdon.train.language.policy import ModelShape, PolicyConfig, build

ALPHABET = "abcdefghijklmnopqrstuvwxyz!:| "
CHAT = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}|{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
PLEASED = ("yes", "yes!", "good", "good!", "nice", "nice!", "thanks", "thanks!", "right", "right!")
DISPLEASED = ("no", "no!", "bad", "bad!", "wrong", "wrong!", "what", "what!", "not it", "not it!")
BANK = {"correctness": {"positive": PLEASED, "negative": DISPLEASED}}  # ten a side, as the source has
TOPICS = "ab"


SHAPE = ModelShape(layers=2, hidden=32, heads=2, mlp=64, context=48, alphabet=ALPHABET, tied_embeddings=False)


def model(seed):
    return LanguageModel(*build(PolicyConfig(SHAPE, chat_template=CHAT), seed=seed))


def says(role, content):
    return {"role": role, "content": content}


def dialogues(n, rng):
    """A user asks for a letter and is pleased with that letter only."""
    found = []
    for _ in range(n):
        topic, reply = rng.choice(list(TOPICS)), rng.choice(list(TOPICS))
        feedback = rng.choice(PLEASED if topic == reply else DISPLEASED)
        found.append([says("user", topic), says("assistant", reply), says("user", str(feedback))])
    return found


def flr(listener, topics, replies, **options):
    batch = Rollouts(list(topics), list(replies), groups=[TOPICS.index(topic) for topic in topics])
    context = Context(batch, models={"listener": listener})
    return batch, likelihood.follow_up(model="listener", bank=BANK, **options).score(batch, context)


def test_flr_listens_to_what_users_say_back_and_to_nothing_else():
    chat = [says("system", "S"), says("user", "q"), says("assistant", "r"), says("user", "ok"), says("user", "and")]
    kept = listening([chat], exchange=False)
    assert kept == [{"prompt": chat[:3], "completion": [chat[3]]}]
    (exchanged,) = listening([chat])
    assert [m["role"] for m in exchanged["prompt"]] == ["system", "assistant", "user"]
    assert exchanged["completion"] == [says("assistant", "ok")]
    assert listening([[*chat[:3], says("user", " ")], chat[:3], []]) == []


def test_flr_an_exchanged_dialogue_is_what_the_listener_was_taught():
    """The contexts and turns that follow_up asks for are those of `listening` on the same dialogue."""

    class Recording:
        def logprobs(self, prompts, completions, *, temperature=1.0):
            self.read = list(zip(prompts, completions, strict=True))
            one = np.zeros((len(prompts), 1))
            return TokenLogprobs(one, np.ones_like(one, bool), one, one, one)

    for exchange in (True, False):
        listener = Recording()
        flr(listener, ["a"], ["b"], exchange=exchange)
        taught = listening([[says("user", "a"), says("assistant", "b"), says("user", "yes")]], exchange=exchange)
        assert listener.read[0] == (taught[0]["prompt"], taught[0]["completion"])


def test_what_cannot_be_read_is_not_learned():
    with pytest.raises(ValueError, match=r"records\[1\] cannot be learned"):
        language_loss(model(0), [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "?"}])
    with pytest.raises(ValueError, match="completions of no tokens"):
        language_loss(model(0), [{"prompt": "a", "completion": ""}])


def test_language_loss_is_the_mean_over_all_tokens():
    shape = ModelShape(layers=1, hidden=16, heads=2, mlp=32, alphabet="abcd")
    listener = LanguageModel(*build(PolicyConfig(shape), seed=0))
    records = [{"prompt": "a", "completion": "bc"}, {"prompt": "b", "completion": "d"}]
    logits = [
        listener.model(torch.tensor([listener.tokenizer(text).input_ids])).logits[0].log_softmax(-1)
        for text in ("abc", "bd")
    ]
    ids = [listener.tokenizer(text).input_ids for text in ("abc", "bd")]
    said = ((0, 2), (1, 1))  # how many tokens at the end of each are the completion's
    expected = -sum(logits[i][t - 1, ids[i][t]] for i, n in said for t in range(len(ids[i]) - n, len(ids[i]))) / 3
    assert language_loss(listener, records).item() == pytest.approx(expected.item(), abs=1e-5)


def test_flr_a_listener_is_trained_on_feedback_mines_pairs_and_the_policy_learns_them():
    """Loss falls; the best and worst of ten are right and wrong; after DPO the policy gives what was asked for."""
    rng = np.random.default_rng(0)
    taught = listening(dialogues(128, rng))
    listener = model(0)
    losses = fit(
        listener.parameters(),
        lambda rows: language_loss(listener, [taught[row] for row in rows]),
        len(taught),
        learning_rate=1e-2,
        epochs=22,
        batch=32,
    )
    assert np.mean(losses[-8:]) < 0.4 * losses[0]
    # It tells right from wrong replies by what the user would say next.
    topics, replies = zip(*[(a, b) for a in TOPICS for b in TOPICS], strict=True)
    _, scores = flr(listener, topics, replies, exchange=True)
    values = scores.read(math.nan).reshape(2, 2)
    assert (values.diagonal()[:, None] > np.where(np.eye(2, dtype=bool), -np.inf, values)).all()
    # Ten replies to each topic; argmax against argmin.
    policy, reference = model(1), model(1)
    asked = [topic for topic in TOPICS for _ in range(10)]
    written = [str(rng.choice(list(TOPICS))) for _ in asked]
    batch, scores = flr(listener, asked, written, exchange=True)
    mined = preference_pairs(scores, batch.groups).records(batch)
    assert len(mined) == 2
    assert all(pair["chosen"] == pair["prompt"] != pair["rejected"] for pair in mined)
    # The preferences are learned by DPO, from the policy's own beginning.
    prompts = [pair["prompt"] for pair in mined for _ in range(2)]
    sides = [pair[side] for pair in mined for side in ("chosen", "rejected")]
    labels, groups = torch.tensor([1.0, 0.0] * 2), [k for k in range(2) for _ in range(2)]

    def dpo(rows):
        rewards, mask = implicit_rewards(
            policy, reference, [prompts[i] for i in rows], [sides[i] for i in rows], beta=0.1
        )
        scores = total(rewards, mask, how="sum")
        return implicit_loss(scores, labels[rows], kind="dpo", groups=torch.tensor([groups[i] for i in rows]))[0]

    def right():
        with torch.no_grad():
            said = policy.logprobs([*TOPICS], [*TOPICS])
        return said.logp.exp().mean().item()

    before = right()
    losses = fit(policy.parameters(), dpo, 4, learning_rate=5e-3, epochs=40, batch=8, groups=groups)
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[-1] < 0.5 * losses[0]
    assert right() > 3 * before
