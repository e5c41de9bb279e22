"""`guerdon train`: run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from guerdon.cli import options, terminal


def command(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/ for examples.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: --set optimizer.learning_rate=1e-4."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Train for so many steps; 1 is a dry run of everything.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/NAME.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Move a run that is there aside and start anew.")] = False,
    allow_import: options.AllowImport = False,
) -> None:
    """Train a policy as a recipe says, and write its run: metrics, rollouts, checkpoints, policy and report.

    The policy is a language model; or a diffusion or flow model where the recipe has a `denoiser`, or a planner of
    actions in an environment where it has a `planner`.

    A folder that holds a run of the same recipe goes on with it from its last checkpoint; a finished one is
    reported; a run of another recipe is refused unless --fresh moves it aside. For several processes, start it
    with `accelerate launch -m guerdon train RECIPE` or `torchrun --no-python --nproc_per_node 2 guerdon train RECIPE`.
    """
    from guerdon.train import control, denoising, language, progress, recipe as recipes
    from guerdon.train.denoising.recipe import DenoisingRecipe
    from guerdon.train.distributed import is_main_process

    changes = [*(set_ or []), *([f"steps={steps}"] if steps is not None else [])]
    loaded = recipes.load(recipe, changes, allow_import=allow_import)
    folder = folder or Path("runs") / loaded.name
    console = terminal.console(stderr=True)
    settings: Any = {"fresh": fresh, "allow_import": allow_import, "console": console}
    if isinstance(loaded, recipes.Recipe):
        summary = language.train(loaded, folder, **settings)
    elif isinstance(loaded, DenoisingRecipe):
        summary = denoising.train(loaded, folder, **settings)
    else:
        summary = control.train(loaded, folder, **settings)
    if is_main_process():
        out = terminal.console()
        out.print(progress.outcome(summary))
        out.print(f"report: {folder / 'report.html'}", soft_wrap=True)
