"""`guerdon check`: what a reward reads, costs and gives on a file, before a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from guerdon.cli import summary, terminal
from guerdon.cli.options import AllowImport, Deadline, File, Group, RewardSpec, Workers

if TYPE_CHECKING:
    from rich.console import Console

    from guerdon.algebra import Reward
    from guerdon.cli.findings import Findings

SAMPLE = 1000


def command(
    file: File,
    reward: RewardSpec,
    label: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="True, false or a number: tally how often score > 0.5 agrees with it."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="ROWS", help="How many rows to score; 0: all. Default: 1000, and all rows with --label."
        ),
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="How many rows of each kind to show.")] = 2,
    workers: Workers = None,
    deadline: Deadline = None,
    allow_import: AllowImport = False,
    group: Group = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings for another program.")] = False,
) -> None:
    """Say what a reward reads, costs and gives on a file, before a run.

    It shows which columns the reward reads and whether FILE has them; its range, scope and level; the
    time per row; how scores are spread; how many rows abstain, and why; and a few scored rows.

    Exits with 2 if FILE lacks something that the reward reads.
    """
    from guerdon.cli import files, findings, scoring

    expression = scoring.read_reward(reward, allow_import=allow_import)
    columns = files.read(file)
    rollouts = files.rollouts_of(columns, group=group, where=file)
    labels = None if label is None else findings.truths(_label(columns, label, expression), label)
    found = {"file": str(file), **findings.describe(expression, rollouts)}
    console = terminal.console()
    if not as_json:
        _show_reward(found, console)
    elif not all(column["found"] for column in found["columns"]):
        terminal.print_json(found)
    scoring.require(expression, columns, file)

    rows = findings.sample(rollouts, (SAMPLE if labels is None else 0) if sample is None else sample)
    with scoring.engine(workers, deadline) as engine:
        scored = scoring.score(expression, rollouts.select(rows), engine)
        if scored.stopped is not None and not len(scored):
            raise scored.stopped
        scored = replace(scored, rows=rows[scored.rows])
        found |= {
            "cost": findings.cost(expression, rollouts, engine, scored),
            "scores": findings.scores(scored.tally()),
            "signal": findings.signal(scored, rollouts),
            "agreement": None if labels is None else findings.agreement(scored, labels, str(label)),
            "examples": findings.examples(
                scored,
                rollouts,
                shown=list(dict.fromkeys(("prompt", "completion", *(column["name"] for column in found["columns"])))),
                labels=labels,
                count=examples,
            ),
        }
    if as_json:
        terminal.print_json(found)
    else:
        _show_scores(found, console)
        if found["agreement"] is not None:
            _show_agreement(found["agreement"], console)
        _show_examples(found, console)
    if scored.stopped is not None:
        raise scored.stopped


def _label(columns: dict[str, list[Any]], label: str, reward: Reward) -> list[Any]:
    from guerdon.core.errors import LevelMismatch, MissingInput

    if label not in columns:
        raise MissingInput(f"--label: there is no column {label!r}; the file has: {', '.join(columns)}")
    if reward.level == "step":
        raise LevelMismatch(f"--label: {reward} gives one score per step, a label is about a rollout: reduce it first")
    return columns[label]


def _show_reward(found: Findings, console: Console) -> None:
    low, high = found["range"]
    together = {"row": "rows one by one", "group": "groups whole", "batch": "the whole batch at once"}[found["scope"]]
    console.print(
        terminal.facts(
            {
                "reward": terminal.printable(found["reward"]),
                "range": f"{terminal.number(low)} to {terminal.number(high)}",
                "gives": f"one score per {found['level']}; scores {together}",
                "file": f"{found['file']}: {found['rows']:,} rows in {found['groups']:,} groups",
            }
        )
    )
    table = terminal.table("column", "read by", "in the file")
    for column in found["columns"]:
        there = "yes" if column["found"] else "missing"
        empty = f", empty in {column['empty']:,} rows" if column["empty"] else ""
        table.add_row(
            *(terminal.printable(text) for text in (column["name"], ", ".join(column["read_by"]), there + empty)),
            style=None if column["found"] else "bold red",
        )
    if found["columns"]:
        console.print()
        console.print(table)
    if found["unread"]:
        console.print(f"not read: {terminal.printable(', '.join(found['unread']))}", style="dim")
    console.print()


def _show_scores(found: Findings, console: Console) -> None:
    cost, scores, signal = found["cost"], found["scores"], found["signal"]
    whole = "" if cost["rows"] == found["rows"] else f"; all would take {terminal.duration(cost['whole'])}"
    workers = f"{cost['workers']} worker{'s' * (cost['workers'] != 1)}"
    rows = {
        "cost": f"{terminal.duration(cost['per_row'])} per row with {workers}",
        "scored": f"{cost['rows']:,} of {found['rows']:,} rows in {terminal.duration(cost['seconds'])}{whole}",
        "scores": _spread(scores),
        "abstained": f"{scores['abstained']:,} ({terminal.share(scores['abstained'], cost['rows'])})",
    }
    if signal["groups"]:
        share = terminal.share(signal["equal"], signal["groups"])
        rows["no signal"] = f"{signal['equal']:,} of {signal['groups']:,} groups ({share}): all their scores are equal"
    console.print(terminal.facts(rows))
    summary.show_parts(scores["parts"], console)
    if len(cost["leaves"]) > 1:
        table = terminal.table("leaf", "rows", "per row", "lane", "deadline", right=("rows", "per row"))
        for leaf in cost["leaves"]:
            limit = "none" if leaf["deadline"] is None else terminal.duration(leaf["deadline"])
            table.add_row(leaf["name"], f"{leaf['rows']:,}", terminal.duration(leaf["per_row"]), leaf["lane"], limit)
        console.print()
        console.print(table)
    summary.show_reasons(scores["reasons"], cost["rows"], console)


def _spread(scores: Findings) -> str:
    if not scores["scored"]:
        return "none"
    mean = f"mean {terminal.number(scores['mean'])}"
    if scores["counts"] is not None:
        return f"{mean}; " + ", ".join(f"{terminal.number(value)} × {count:,}" for value, count in scores["counts"])
    low, *quartiles, high = map(terminal.number, scores["quantiles"])
    return f"{mean}; from {low} to {high}, quartiles {', '.join(quartiles)}"


def _show_agreement(agreement: Findings, console: Console) -> None:
    column = terminal.printable(agreement["column"])
    table = terminal.table("", f"{column} true", f"{column} false", right=(f"{column} true", f"{column} false"))
    for name, key in {"score > 0.5": "high", "score ≤ 0.5": "low", "abstained": "abstained"}.items():
        table.add_row(name, f"{agreement[f'true_{key}']:,}", f"{agreement[f'false_{key}']:,}")
    console.print()
    console.print(table)
    agree, labelled = agreement["agree"], agreement["labelled"]
    console.print(f"they agree on {agree:,} of {labelled:,} rows ({terminal.share(agree, labelled)})", style="bold")


def _show_examples(found: Findings, console: Console) -> None:
    from rich.text import Text

    for example in found["examples"]:
        score = example["score"]
        outcome = "no score" if score is None else f"score {_score(score)}"
        label = (
            "" if example["label"] is None else f", {found['agreement']['column']} is {str(example['label']).lower()}"
        )
        console.print()
        console.print(Text.assemble((example["kind"], "bold"), f"  row {example['row']:,}: {outcome}{label}"))
        details = ", ".join(f"{key}: {value}" for key, value in example["details"].items())
        because = {"because": terminal.shorten(example["reason"])} if example["reason"] else {}
        texts = {**example["columns"], **because, **({"details": details} if details else {})}
        console.print(terminal.facts({f"  {terminal.printable(name)}": text for name, text in texts.items()}))


def _score(score: float | list[float | None]) -> str:
    return ", ".join(map(terminal.number, score)) if isinstance(score, list) else terminal.number(score)
