"""Every way to train a denoiser, on one problem whose best answer is known; prints one line of JSON for each.

    python benchmarks/denoising_methods.py [--quick] [--write] [--methods NAME …] [--budget 200000] [--seeds 3]
                                           [--processes 2]

`denoising_problem.py` says what the problem is and what is measured, `denoising_contenders.py` has the methods. One
optimiser (Adam) goes down a method's losses until the policy's samples are worth what those of the best policy are, or
the budget is spent: evaluations of any model, forwards and backwards, one for each row, sampling and the reference
included. What learns from examples and not from the reward runs to the end. Of three rates each method gets the one
that ends nearest to the best on a seed of its own; then the seeds are run, and means over them printed. The other
numbers of a method are its source's or a first choice, but for the weights of denoising errors: of five that were tried
on two methods, with a seed that is also reported, the best is taken.

--quick    a hundredth of the budget, one rate, one seed
--write    put the table into docs/results.md
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from denoising_contenders import METHODS
from denoising_problem import BEST, DATA, ODE, Lab, mean_reward, measured

from guerdon.objectives.denoising import sample

RATES = (3e-4, 1e-3, 3e-3)
MARKERS = "<!-- denoising_methods -->", "<!-- /denoising_methods -->"


def run(name: str, rate: float, seed: int, budget: int, checks: int = 200) -> dict[str, float]:
    """One training, and what came of it."""
    lab, began, checked = Lab(seed, rate, budget), time.perf_counter(), 0
    for loss in METHODS[name](lab):
        lab.optimizer.zero_grad()
        loss.backward()
        lab.optimizer.step()
        spent = lab.spent.of_models
        if spent * checks // budget > checked:
            checked = spent * checks // budget
            if spent >= budget or mean_reward(lab.policy.model) >= lab.enough:
                break
    found = {**vars(lab.spent), "seconds": time.perf_counter() - began}
    before, n = lab.spent.of_models, 16
    sample(lab.sampler, lab.noise(n), ODE)
    found["per_sample"] = (lab.spent.of_models - before) / n
    return {**measured(lab.sampler), **found}


def compared(name: str, budget: int, rates: Sequence[float], seeds: int) -> dict[str, Any]:
    """The method at the rate that is best for it on a seed that is not reported: means over the seeds."""

    def missed(rate: float) -> float:
        found = run(name, rate, seeds, budget)["to_best"]
        return found if math.isfinite(found) else math.inf

    rate = min(rates, key=missed) if len(rates) > 1 else rates[0]
    found = [run(name, rate, seed, budget) for seed in range(seeds)]
    line: dict[str, Any] = {"method": name, "rate": rate}
    line |= {key: statistics.fmean(one[key] for one in found) for key in found[0]}
    spread = [one["to_best"] for one in found]
    return line | {"to_best_least": min(spread), "to_best_most": max(spread)}


def trained(
    names: Sequence[str], budget: int, rates: Sequence[float], seeds: int, *, processes: int
) -> Iterator[dict[str, Any]]:
    """A line for each method, in their order; as many at a time as there are processes."""
    work = partial(compared, budget=budget, rates=rates, seeds=seeds)
    if processes == 1:
        yield from map(work, names)
        return
    with ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        yield from pool.map(work, names)


def known() -> list[dict[str, Any]]:
    """What is there before, and the flow of the best policy under this sampler: as near as ten steps come to it."""
    return [{"method": name, **measured(world.velocity)} for name, world in (("the data", DATA), ("the best", BEST))]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown, the nearest to the best first."""

    def cells(line: dict[str, Any]) -> list[str]:
        shown = [f"{line[key]:.2f}" for key in ("reward", "kl", "entropy", "lesser")]
        if "rate" not in line:
            return [f"*{line['method']}*", f"{line['to_best']:.3f}", *shown, *[""] * 5]
        span = f"{line['to_best']:.3f} ({line['to_best_least']:.3f} … {line['to_best_most']:.3f})"
        cost = [f"{line[key] / 1e3:.1f}" for key in ("forwards", "backwards", "rewards")]
        return [line["method"], span, *shown, *cost, f"{line['seconds']:.1f}", f"{line['rate']:g}"]

    head = ["method", "KL to the best", "reward", "KL to the data", "entropy", "lesser mode"]
    head += ["forwards, 10³", "backwards", "rewards", "s", "rate"]
    rows = [head, ["---"] * len(head), *map(cells, sorted(lines, key=lambda line: line["to_best"]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write(text: str) -> None:
    """Between the markers of docs/results.md."""
    page = Path(__file__).resolve().parents[1] / "docs" / "results.md"
    before, rest = page.read_text("utf-8").split(MARKERS[0])
    page.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{rest.split(MARKERS[1])[1]}", "utf-8")


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--budget", type=int, default=200_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args(arguments)
    settings = (options.budget // 100, RATES[-1:], 1) if options.quick else (options.budget, RATES, options.seeds)
    lines = known()
    for line in trained(options.methods, *settings, processes=options.processes):
        lines.append(line)
        print(json.dumps({key: round(x, 4) if isinstance(x, float) else x for key, x in line.items()}), flush=True)
    if options.write:
        write(table(lines))
    return lines


if __name__ == "__main__":
    main()
