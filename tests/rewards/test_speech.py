"""Speech beside its clean recording: by definition, by the installed judge, and what is no recording."""

import math
import sys
import types

import numpy as np
import pytest

from guerdon.core.errors import Abstain, MissingExtra
from guerdon.rewards import speech

RATE = 10_000


def voice(seconds=1.5, seed=0):
    """A buzz under a slowly changing envelope, as syllables have it."""
    t = np.arange(int(seconds * RATE)) / RATE
    rng = np.random.default_rng(seed)
    tone = sum(np.sin(2 * np.pi * 140 * k * t + rng.uniform(0, 6)) / k for k in range(1, 20))
    return tone * (0.15 + np.sin(2 * np.pi * 3 * t) ** 2)


def test_flowse_grpo_si_sdr_by_its_definition():
    clean, noise = voice(), np.random.default_rng(1).normal(size=15_000)
    x, y = clean - clean.mean(), (clean + 0.3 * noise) - (clean + 0.3 * noise).mean()
    target = (x @ y) / (x @ x) * x
    expected = 10 * math.log10((target @ target) / ((target - y) @ (target - y)))
    part = speech.si_sdr(column="out")
    assert part(["?"] * 2, [""] * 2, out=[y, 7 * y + 2], clean=[clean] * 2) == pytest.approx([expected] * 2)
    assert part(["?"], [""], out=[clean], clean=[clean]) == [60.0]


def test_flowse_grpo_intelligibility_falls_with_noise():
    pytest.importorskip("pystoi")
    clean, noise = voice(), np.random.default_rng(1).normal(size=15_000)
    heard = [clean + amount * noise for amount in (0.0, 0.5, 5.0)]
    part = speech.intelligibility(rate=RATE, column="out")
    found = [part.evaluate(wave, clean)[0] for wave in heard]
    assert found[0] == pytest.approx(1.0, abs=1e-6)
    assert 1 > found[1] > found[2] >= 0
    with pytest.raises(Abstain, match="too little"):
        part.evaluate(clean[:500], clean[:500])


def test_intelligibility_asks_what_is_left_of_the_clean_recording_and_not_the_reverse():
    """STOI leaves out what is silent in the clean recording: half of it here, where the other is noise."""
    stoi = pytest.importorskip("pystoi").stoi
    clean = voice() * (np.arange(15_000) < 7_500)
    heard = clean + 0.3 * np.random.default_rng(1).normal(size=15_000) * (1 + (np.arange(15_000) >= 7_500))
    clean, heard = clean - clean.mean(), heard - heard.mean()
    found = speech.intelligibility(rate=RATE, column="out").evaluate(heard, clean)[0]
    assert found == pytest.approx(stoi(clean, heard, RATE))
    assert abs(found - stoi(heard, clean, RATE)) > 0.05


def test_what_is_loud_where_the_clean_recording_is_not_is_worth_0():
    stoi = pytest.importorskip("pystoi").stoi
    loud = 1.3 - np.sin(2 * np.pi * 3 * np.arange(15_000) / RATE) ** 2
    heard = loud * np.random.default_rng(1).normal(size=15_000)
    assert stoi(voice(), heard, RATE) < -0.1
    assert speech.intelligibility(rate=RATE, column="out").evaluate(heard, voice()) == (0.0, {"problem": None})


def test_pesq_is_given_reference_and_recording_in_this_order(monkeypatch):
    fake = types.ModuleType("pesq")
    fake.PesqError = type("PesqError", (RuntimeError,), {})
    asked = []

    def measured(rate, reference, recording, mode):
        asked.append((rate, mode, reference.tolist(), recording.tolist()))
        if recording[0] > 5:
            raise fake.PesqError("No utterances detected")
        return 2.5

    fake.pesq = measured
    fake.__spec__ = types.SimpleNamespace(name="pesq")
    monkeypatch.setitem(sys.modules, "pesq", fake)
    part = speech.pesq(column="out")
    assert part.evaluate([1.0, -1.0], [2.0, -2.0]) == (2.5, {"problem": None})
    assert asked == [(16000, "wb", [2.0, -2.0], [1.0, -1.0])]
    with pytest.raises(Exception, match="nothing to compare"):
        part.evaluate([9.0, -9.0], [2.0, -2.0])


def test_pesq_that_is_not_installed_is_missed_at_once(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setattr("guerdon.core.extras.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="speech"):
        speech.pesq()


@pytest.mark.parametrize("wrong", [None, "text", [], [[1.0]], [math.nan, 1.0], [1.0, 1.0], [1.0, 2.0, 3.0]])
def test_what_is_no_recording_gets_the_floor_and_no_reference_abstains(wrong):
    part = speech.si_sdr(column="out")
    assert part(["?"], [""], out=[wrong], clean=[[1.0, -1.0]]) == [-30.0]
    if wrong != [1.0, 2.0, 3.0]:
        with pytest.raises(Abstain, match="no clean recording"):
            part.evaluate([1.0, -1.0], wrong)
