"""What came of the run, in one sentence and a row of figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from guerdon.train.report.curves import Record, interval, number
from guerdon.train.report.page import escape

Tone = Literal["better", "worse", "unclear"]
Kind = Literal["language", "denoising", "control"]

UNITS = {"language": "answers", "denoising": "pictures", "control": "episodes"}


@dataclass(frozen=True)
class Outcome:
    """One evaluation.

    Args:
        accuracy: share of right answers; of other policies than language models, the mean reward.
        ci95: ends of its 95 % interval.
        length: mean tokens of an answer.
        n: answers, pictures or episodes.
        vendi: how many different pictures there are of a prompt.
        nearest: the distance to the nearest real picture.
        follows: the rank correlation of what a planner earned with what it was asked for.
        recorded: the mean return of the episodes that it learns from, and the best.
    """

    accuracy: float | None = None
    ci95: tuple[float, float] | None = None
    length: float | None = None
    n: float | None = None
    vendi: float | None = None
    nearest: float | None = None
    follows: float | None = None
    recorded: Record | None = None

    @classmethod
    def of(cls, *records: Record | None, measure: str = "accuracy") -> Outcome:
        """An outcome from the first record that has each number."""

        def first(name: str, read: Any = number) -> Any:
            return next((x for r in records if r and (x := read(r.get(name))) is not None), None)

        length, n, vendi, nearest, follows = map(first, ("mean_length", "n", "vendi", "nearest", "follows"))
        recorded = first("recorded", lambda known: known or None)
        return cls(first(measure), first("ci95", interval), length, n, vendi, nearest, follows, recorded)


def verdict(before: Outcome, after: Outcome | None, measure: str = "accuracy") -> tuple[str, Tone]:
    """What the evaluations say, and no more than their intervals allow.

    >>> verdict(Outcome(0.24, (0.21, 0.27)), Outcome(0.71, (0.68, 0.74)))
    ('accuracy rose from 0.24 to 0.71; the 95 % intervals do not overlap', 'better')
    >>> verdict(Outcome(0.24, (0.21, 0.27)), Outcome(0.26, (0.23, 0.29)))
    ('accuracy went from 0.24 to 0.26; the 95 % intervals overlap, so this run alone shows no change', 'unclear')
    """
    if before.accuracy is None:
        return f"no {measure} has been measured", "unclear"
    digits = _digits(before, after)
    if after is None or after.accuracy is None:
        return f"{measure} was {before.accuracy:.{digits}f} before training; none has been measured since", "unclear"
    change = f"from {before.accuracy:.{digits}f} to {after.accuracy:.{digits}f}"
    if before.ci95 is None or after.ci95 is None:
        return f"{measure} went {change}; without intervals that may be chance", "unclear"
    if before.ci95[0] <= after.ci95[1] and after.ci95[0] <= before.ci95[1]:
        return f"{measure} went {change}; the 95 % intervals overlap, so this run alone shows no change", "unclear"
    rose = after.accuracy > before.accuracy
    return (
        f"{measure} {'rose' if rose else 'fell'} {change}; the 95 % intervals do not overlap",
        "better" if rose else "worse",
    )


def headline(
    *,
    name: str,
    planned: float | None,
    metrics: Sequence[Record],
    evaluations: Sequence[Record],
    summary: Mapping[str, Any] | None,
    kind: Kind = "language",
) -> dict[str, str]:
    """The top of the page, as markup.

    Args:
        name: of the run.
        planned: steps of the recipe.
        metrics: one record per step.
        evaluations: in order of their steps.
        summary: None if the run has not ended.
        kind: of policy: accuracy is to grow, or the reward where it is no language model.
    """
    ended = summary or {}
    measure = "accuracy" if kind == "language" else "reward"
    first = evaluations[0] if evaluations else None
    last = evaluations[-1] if len(evaluations) > 1 else None
    before = Outcome.of(ended.get("before"), first, measure=measure)
    after = Outcome.of(ended.get("after"), last, measure=measure) if summary or last else None
    sentence, tone = verdict(before, after, measure)
    if summary is None and last is not None:
        sentence = f"so far, at step {last.get('step')}, {sentence}"
    sentence += _brevity(before, after) + _searched(ended.get("after"), last, ended.get("before"), first)
    done = metrics[-1].get("step", len(metrics)) if metrics else 0
    of_planned = f" of {planned:.0f}" if planned else ""
    state = "finished" if summary is not None else f"unfinished · step {done}{of_planned}"
    tiles = [
        _outcome_tile(before, after, kind),
        _second(kind, before, after),
        _tile("Time", *_time(ended, metrics, done)),
        _tile("Peak memory", *_memory(number(ended.get("peak_rss_mib")))),
        _tile("Abstained", *_abstained(ended, metrics)),
    ]
    return {
        "name": escape(name),
        "state": f'<span class="state {"finished" if summary is not None else "unfinished"}">{escape(state)}</span>',
        "verdict": f'<p class="verdict {tone}">{_typeset(sentence[0].upper() + sentence[1:] + ".")}</p>',
        "tiles": "\n".join(tiles),
    }


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(174.2), duration(3725), duration(4.26)
    ('2 min 54 s', '1 h 02 min', '4.3 s')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _digits(*outcomes: Outcome | None) -> int:
    """Decimals that the intervals support: the first that moves within them, at least two."""
    halves = [(o.ci95[1] - o.ci95[0]) / 2 for o in outcomes if o and o.ci95 and o.ci95[1] > o.ci95[0]]
    return min(6, max(2, math.ceil(-math.log10(min(halves))))) if halves else 2


def _brevity(before: Outcome, after: Outcome | None) -> str:
    if before.length is None or after is None or after.length is None:
        return ""
    shares = after.length / before.length - 1 if before.length else 0.0
    if abs(shares) < 0.01:
        return f". Answers kept their length of {after.length:.3g} tokens"
    longer = "longer" if shares > 0 else "shorter"
    return f". Answers became {abs(shares):.0%} {longer}".replace("%", " %")


def _searched(*records: Record | None) -> str:
    """The accuracy of answers that were searched for, of the first record that has it."""
    found = next((x for r in records if r and (x := number((r.get("search") or {}).get("accuracy"))) is not None), None)
    return "" if found is None else f". Answers that were searched for are right in {found:.0%}".replace("%", " %")


def _second(kind: Kind, before: Outcome, after: Outcome | None) -> str:
    """What is to be seen beside the outcome."""
    if kind == "denoising":
        return _tile("Variety", *_variety(before, after))
    if kind == "control":
        return _tile("Does as asked", *_follows(before, after))
    return _tile("Answer length", *_length(before, after))


def _outcome_tile(before: Outcome, after: Outcome | None, kind: Kind) -> str:
    digits = _digits(before, after)
    known = [outcome for outcome in (before, after) if outcome is not None and outcome.accuracy is not None]
    note = " → ".join(
        f"[{outcome.ci95[0]:.{digits}f}, {outcome.ci95[1]:.{digits}f}]" for outcome in known if outcome.ci95
    )
    answers = f" · {_grouped(known[-1].n)} {UNITS[kind]}" if known and known[-1].n else ""
    values = [f"{outcome.accuracy:.{digits}f}" for outcome in known]
    within = all(0 <= end <= 1 for o in known for end in (o.accuracy or 0.0, *(o.ci95 or ())))
    return _tile(
        {"language": "Accuracy", "denoising": "Reward", "control": "Earned, asked for most"}[kind],
        values,
        f"95 % {note}{answers}" if note else "not measured",
        _strip(known) if known and within else "",
        wide=True,
    )


def _strip(outcomes: Sequence[Outcome]) -> str:
    """The intervals on a scale from 0 to 1; in percentages, so that it is as wide as there is room."""
    rows = []
    for i, (outcome, kind) in enumerate(zip(outcomes, ("before", "after"), strict=False)):
        low, high = outcome.ci95 or (outcome.accuracy, outcome.accuracy)
        y = 6 + 10 * i
        rows.append(
            f'<g class="{kind}"><line x1="{_percent(low)}" x2="{_percent(high)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{_percent(outcome.accuracy)}" cy="{y}" r="3.5"/></g>'
        )
    marks = "".join(f'<line class="mark" x1="{x}%" x2="{x}%" y1="0" y2="22"/>' for x in (0, 25, 50, 75, 100))
    labels = "".join(
        f'<text x="{x}%" y="33" text-anchor="{anchor}">{x / 100:g}</text>'
        for x, anchor in ((0, "start"), (50, "middle"), (100, "end"))
    )
    return f'<svg class="strip" height="36" aria-hidden="true">{marks}{"".join(rows)}{labels}</svg>'


def _percent(share: float | None) -> str:
    return f"{100 * min(max(share or 0.0, 0.0), 1.0):.2f}%"


def _length(before: Outcome, after: Outcome | None) -> tuple[list[str], str]:
    known = [f"{o.length:.1f}" for o in (before, after) if o is not None and o.length is not None]
    if len(known) < 2 or not before.length or after is None or after.length is None:
        return known, "tokens, mean" if known else "not measured"
    return known, f"tokens, mean · {after.length / before.length - 1:+.0%}".replace("-", "−").replace("%", " %")


def _variety(before: Outcome, after: Outcome | None) -> tuple[list[str], str]:
    known = [o for o in (before, after) if o is not None and o.vendi is not None]
    near = [f"{o.nearest:.3f}" for o in known if o.nearest is not None]
    note = f" · distance to real {' → '.join(near)}" if near else ""
    return [f"{o.vendi:.2f}" for o in known], f"Vendi score per prompt{note}" if known else "not measured"


def _follows(before: Outcome, after: Outcome | None) -> tuple[list[str], str]:
    known = [o for o in (before, after) if o is not None]
    seen = next((o.recorded for o in reversed(known) if o.recorded), {})
    mean, best = (number(seen.get(name)) for name in ("mean", "best"))
    note = "" if mean is None or best is None else f" · recorded {mean:.4g}, best {best:.4g}"
    values = [f"{o.follows:.2f}" for o in known if o.follows is not None]
    return values, f"rank correlation with what was earned{note}"


def _time(summary: Record, metrics: Sequence[Record], done: Any) -> tuple[list[str], str]:
    seconds = number(summary.get("seconds"))
    if seconds is None:
        seconds = next((x for r in reversed(metrics) if (x := number(r.get("seconds"))) is not None), None)
    speeds = sorted(x for r in metrics if (x := number(r.get("tokens_per_second"))) is not None)
    speed = f" · {_grouped(speeds[len(speeds) // 2])} tokens/s" if speeds else ""
    if not speeds:
        speeds = sorted(x for r in metrics if (x := number(r.get("steps_per_second"))) is not None)
        speed = f" · {_grouped(speeds[len(speeds) // 2])} denoising steps/s" if speeds else ""
    if not speeds:
        speeds = sorted(x for r in metrics if (x := number(r.get("windows_per_second"))) is not None)
        speed = f" · {_grouped(speeds[len(speeds) // 2])} windows/s" if speeds else ""
    return [] if seconds is None else [duration(seconds)], f"{done} step{'' if done == 1 else 's'}{speed}"


def _memory(mib: float | None) -> tuple[list[str], str]:
    if mib is None:
        return [], "not measured"
    return [f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"], f"{_grouped(mib)} MiB resident"


def _abstained(summary: Record, metrics: Sequence[Record]) -> tuple[list[str], str]:
    share = number(summary.get("abstained"))
    shares = [x for r in metrics if (x := number(r.get("abstained"))) is not None]
    if share is None and shares:
        share = sum(shares) / len(shares)
    if share is None:
        return [], "not measured"
    kinds = len({reason for record in metrics for reason in record.get("reasons") or {}})
    why = f", for {kinds} reason{'s' if kinds > 1 else ''}" if kinds else ""
    return [f"{_percentage(share)} %"], f"of rollouts{why}"


def _percentage(share: float) -> str:
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") if share < 0.1 else f"{100 * share:.0f}"


def _grouped(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def _tile(label: str, values: Sequence[str], note: str, extra: str = "", *, wide: bool = False) -> str:
    arrow = '<span class="arrow">→</span>'
    shown = arrow.join(f"<span>{_typeset(value)}</span>" for value in values) or '<span class="none">–</span>'
    return (
        f'<div class="tile{" wide" if wide else ""}"><dt>{escape(label)}</dt><dd>{shown}</dd>'
        f"{extra}<p>{_typeset(note)}</p></div>"
    )


def _typeset(text: str) -> str:
    """Escaped, with units kept beside their numbers."""
    return escape(text).replace(" %", "\u00a0%")
