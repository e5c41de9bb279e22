"""The arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path,
    typer.Argument(
        exists=True,
        dir_okay=False,
        readable=True,
        help="Rollouts: .jsonl, .jsonl.gz or .parquet, with prompt, completion, and optionally group, id, finished.",
    ),
]
RewardSpec = Annotated[
    str,
    typer.Option(
        "--reward",
        "-r",
        metavar="SPEC",
        help="A YAML file (of a recipe, the reward), a part (math.answer) or YAML: '{part: text.length, unit: words}'.",
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Worker processes. Default: one for each core this process may use.")
]
Deadline = Annotated[
    float | None,
    typer.Option(min=0.001, help="Seconds that one row may take, where a part of the reward does not say itself."),
]
Cache = Annotated[
    bool,
    typer.Option(
        "--cache",
        help="Keep the scores of rows that take more than a millisecond, and look up those kept before.",
    ),
]
AllowImport = Annotated[
    bool,
    typer.Option(
        "--allow-import", help="Also load parts from outside guerdon. This runs their code: only for specs you trust."
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Rows with equal values in it are compared with one another. Default: group, else runs of equal prompts.",
    ),
]
