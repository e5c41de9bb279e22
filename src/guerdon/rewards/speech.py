"""How near an enhanced recording is to the clean one: as a signal, and as people hear and understand it."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from guerdon.algebra import reward
from guerdon.core.arrays import to_numpy
from guerdon.core.errors import Abstain
from guerdon.core.extras import needs
from guerdon.core.parsing import shown

__all__ = ["intelligibility", "pesq", "si_sdr", "signal_distortion"]

Wave = Float[np.ndarray[Any, Any], "t"]


def _columns(column: str, **options: Any) -> tuple[str, ...]:
    return (column, "clean")


def _ends(low: float, high: float, **options: Any) -> tuple[float, float]:
    return low, high


@reward(range=_ends, columns=_columns)
def si_sdr(
    wave: Any, clean: Any, *, column: str = "completion", low: float = -30.0, high: float = 60.0
) -> tuple[float, dict[str, Any]]:
    """The scale-invariant signal-to-distortion ratio, in dB; see `signal_distortion`.

    Args:
        wave: the enhanced recording, samples of one channel.
        clean: the reference, as long.
        column: of the recording.
        low: what it is held above, in dB; what is silent or no recording gets it.
        high: what it is held below; an exact copy has infinitely much.

    Returns:
        The score, and as a detail what is wrong.

    Raises:
        Abstain: if the reference is missing, silent or not finite.

    >>> from guerdon.rewards import speech
    >>> [round(x) for x in speech.si_sdr(column="out")(["?"], [""], out=[[2.0, -2, 0, 0]], clean=[[1.0, -1, -1, 1]])]
    [0]

    Source: "SDR: half-baked or well done?" (arXiv 1811.02508).
    """
    mine, reference, problem = _pair(wave, clean)
    if problem is not None:
        return low, {"problem": problem}
    return float(np.clip(signal_distortion(mine, reference), low, high)), {"problem": None}


def signal_distortion(wave: Float[np.ndarray[Any, Any], "*n t"], clean: Float[np.ndarray[Any, Any], "*n t"]) -> Any:
    """10 log₁₀ ‖αx‖² / ‖αx − y‖², α = ⟨x, y⟩ / ‖x‖²: how much of a recording y is the clean x, at any loudness, in dB.

    Args:
        wave: y; not centred here.
        clean: x, not silent.

    Returns:
        −inf for what has nothing of x, inf for a copy.

    >>> round(float(signal_distortion(np.array([1.0, 1.0]), np.array([1.0, 0.0]))), 9)
    0.0

    Source: "SDR: half-baked or well done?" (arXiv 1811.02508).
    """
    y, x = np.asarray(wave, np.float64), np.asarray(clean, np.float64)
    scaled = ((x * y).sum(-1) / (x**2).sum(-1))[..., None] * x
    with np.errstate(divide="ignore"):
        return 10 * (np.log10((scaled**2).sum(-1)) - np.log10(((scaled - y) ** 2).sum(-1)))


@reward(
    range=(0, 1), columns=_columns, requires=needs("speech.intelligibility", "pystoi", extra="speech"), deadline=60.0
)
def intelligibility(
    wave: Any, clean: Any, *, rate: int = 16000, extended: bool = False, column: str = "completion"
) -> tuple[float, dict[str, Any]]:
    """STOI: how much of the speech is understood, by how its envelopes follow those of the clean recording.

    Args:
        wave, clean, column: see `si_sdr`.
        rate: samples per second.
        extended: ESTOI, which also hears modulated noise.

    Returns:
        The score, negative ones as 0, and as a detail what is wrong. What is no recording gets 0.

    Raises:
        Abstain: as `si_sdr`, or if there are less than about 0.4 s of speech to compare.
        MissingExtra: at once, without `pystoi`.

    Source: Taal et al. (2011), by pystoi; ESTOI: Jensen and Taal (2016).
    """
    import warnings

    from pystoi import stoi

    mine, reference, problem = _pair(wave, clean)
    if problem is not None:
        return 0.0, {"problem": problem}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = float(stoi(reference, mine, rate, extended=extended))
    if any(issubclass(one.category, RuntimeWarning) and "frames" in str(one.message) for one in said):
        raise Abstain("too little speech in the reference for STOI")
    return min(max(found, 0.0), 1.0), {"problem": None}


@reward(range=(-0.5, 4.644), columns=_columns, requires=needs("speech.pesq", "pesq", extra="pesq"), deadline=60.0)
def pesq(
    wave: Any,
    clean: Any,
    *,
    rate: int = 16000,
    mode: Literal["wb", "nb"] = "wb",
    column: str = "completion",
) -> tuple[float, dict[str, Any]]:
    """PESQ: the opinion score that people would give the recording beside the clean one.

    Args:
        wave, clean, column: see `si_sdr`.
        rate: 16000, or 8000 with mode 'nb'.
        mode: 'wb' for wide band, 'nb' for telephones.

    Returns:
        From about 1, bad, to 4.64 (wb) or 4.55 (nb); and as a detail what is wrong.

    Raises:
        Abstain: as `si_sdr`, or if no utterance is found in the reference.
        MissingExtra: at once, without `pesq`.

    Source: ITU-T P.862.2, by pesq.
    """
    from pesq import PesqError, pesq as measured

    mine, reference, problem = _pair(wave, clean)
    if problem is not None:
        return -0.5, {"problem": problem}
    try:
        found = float(measured(rate, reference, mine, mode))
    except PesqError as error:
        raise Abstain(f"PESQ finds nothing to compare: {error}") from error
    return found, {"problem": None}


def _pair(wave: Any, clean: Any) -> tuple[Wave, Wave, str | None]:
    """Recording and reference, centred, and what is wrong with the recording."""
    reference = _wave(clean)
    if reference is None or not np.any(reference):
        raise Abstain(f"no clean recording: {shown(clean)}")
    mine = _wave(wave)
    if mine is None:
        return reference, reference, f"no recording: {shown(wave)}"
    if len(mine) != len(reference):
        return reference, reference, f"{len(mine)} samples beside {len(reference)} of the clean recording"
    if not np.any(mine):
        return reference, reference, "silence"
    return mine, reference, None


def _wave(entry: Any) -> Wave | None:
    try:
        found = np.asarray(to_numpy(entry), np.float64)
    except (TypeError, ValueError):
        return None
    if found.ndim != 1 or not len(found) or not math.isfinite(float(found.sum())):
        return None
    return np.asarray(found - found.mean())
