"""`report.html`: a run to look at. One file that opens from disk and asks the network for nothing.

The run's folder is boiled down to data (`curves`: what was measured; `samples`: what the policy wrote) and to a
headline; `page` puts them into one document, and its script draws them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from guerdon.train.report.curves import asked, by_step, curves, evaluations, frontier, lengths, number, reasons
from guerdon.train.report.headline import Kind, headline
from guerdon.train.report.page import page
from guerdon.train.report.pictures import pictures
from guerdon.train.report.samples import samples
from guerdon.train.run import Run, disk, write_text

__all__ = ["write"]


def write(run: Run) -> Path:
    """Write a run's report; the run may be finished, killed, or still going on.

    Nothing needs to be there: what is missing in the folder is said to be missing in the report.

    Args:
        run: the run's folder; only read, but for the report.

    Returns:
        The path of `report.html` in the run's folder; below 2 MB.

    Raises:
        GuerdonError: if a line of the metrics or evaluations (not the last one) is not JSON, or the disk is full.
    """
    recipe, config = _recipe(run)
    metrics, measured, summary = run.metrics(), by_step(run.evaluations()), run.summary
    kind: Kind = "denoising" if "denoiser" in config else "control" if "planner" in config else "language"
    data = {
        "kind": kind,
        "pictures": pictures(run.pictures()),
        "curves": curves(metrics),
        "evaluations": evaluations(measured),
        "frontier": frontier(measured),
        "asked": asked(measured),
        "lengths": lengths(measured),
        "reasons": reasons(metrics),
        "samples": samples(run.rollouts(), config),
        "finished": summary is not None,
    }
    head = headline(
        name=str(config.get("name") or run.folder.resolve().name),
        planned=number(config.get("steps")),
        metrics=metrics,
        evaluations=measured,
        summary=summary,
        kind=kind,
    )
    path = run.folder / "report.html"
    with disk(path):
        write_text(path, page(head, recipe, data))
    return path


def _recipe(run: Run) -> tuple[str, dict[str, Any]]:
    """The recipe as it is written, and what can be read of it."""
    path = run.folder / "config.yaml"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError:
        config = None
    return text, config if isinstance(config, dict) else {}
