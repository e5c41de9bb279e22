"""docs/recipes.md names every setting of a recipe, with its default."""

import dataclasses
import inspect
import json
import re
import typing
from functools import partial
from pathlib import Path

import pytest
import yaml

from guerdon import data
from guerdon.core.parts import name_of, names
from guerdon.credit import group_relative
from guerdon.objectives import clip, policy_gradient
from guerdon.train import comparison as comparisons, presets, recipe as recipes
from guerdon.train.control.recipe import (
    ControlEvaluation,
    ControlRecipe,
    EnvironmentConfig,
    EpisodesConfig,
    PlannerConfig,
)
from guerdon.train.denoising.denoiser import DenoiserConfig, DenoiserShape
from guerdon.train.denoising.digits import DenoisingTeach
from guerdon.train.denoising.recipe import Calibration, DenoisingEvaluation, DenoisingRecipe, DenoisingSampling
from guerdon.train.language import demonstrations
from guerdon.train.method import KL, Answer, Blend, Method, options
from guerdon.train.recipe import Recipe
from guerdon.train.sampling import Begin, Guided, Sampling, Steps

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "recipes.md").read_text("utf-8")
MISSING = dataclasses.MISSING

# Defaults that are said in words, and why they have no other form.
WORDS = {
    "name": "the file's name",  # filled in when a recipe is read
    "policy.from_config.alphabet": "printable ASCII and the newline",
    "method.credit": "the preset's",
    "method.objective": "the preset's",
}


def sections():
    """The tables under each heading, each as rows of cells."""
    parts = re.split(r"^##+ (.+)$", PAGE, flags=re.MULTILINE)
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
        yield heading.strip("`"), [[cells(line) for line in table.splitlines()] for table in tables]


def cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(heading, first="setting"):
    """The rows of a section's table, by the name in their first cell: its second cell."""
    [rows] = [t for t in dict(sections())[heading] if t[0][0] == first]
    for row in rows:
        assert len(row) == len(rows[0]), f"{heading}: {row} does not have the columns of its table"
        assert row[-1], f"{heading}: {row[0]} is not explained"
    return {row[0].strip("`"): row[1] for row in rows[2:]}


def settings(kind=Recipe, place=""):
    """Each section of a recipe, `policy.lora`, with its dataclass."""
    yield place, kind
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        for choice in (hints[field.name], *typing.get_args(hints[field.name])):
            if dataclasses.is_dataclass(choice):
                yield from settings(choice, f"{place}.{field.name}".strip("."))


SECTIONS = dict(settings()) | {
    "method": Method,
    "method.kl": KL,
    "method.blend": Blend,
    "method.sampling": Sampling,
    "method.sampling.begin": Begin,
    "method.sampling.steps": Steps,
    "method.sampling.guided": Guided,
    "method.answer": Answer,
}


def test_the_sections_are_found():
    """The walk over the dataclasses finds those that are behind `| None` and within others, too."""
    assert {"", "policy", "policy.lora", "teach", "keep"} <= set(SECTIONS)


@pytest.mark.parametrize("place", SECTIONS)
def test_every_setting_is_there_with_its_default(place):
    shown, fields = table(place or "The whole"), dataclasses.fields(SECTIONS[place])
    assert list(shown) == [field.name for field in fields], "the settings, in their order"
    for field in fields:
        assert_default(f"{place}.{field.name}".strip("."), shown[field.name], default_of(field))


def default_of(field):
    return field.default_factory() if field.default_factory is not MISSING else field.default


def assert_default(place, cell, default):
    if place in WORDS:
        assert cell == WORDS[place]
    elif default is MISSING:
        assert cell == "required", place
    elif dataclasses.is_dataclass(default):
        assert cell == f"[below](#{place.replace('.', '')})", place
    else:
        assert_same(place, cell, default)


def assert_same(place, cell, default):
    """A default as the YAML that a recipe would hold; YAML takes `1e-8` for text."""
    shown = yaml.safe_load(cell.removeprefix("`").removesuffix("`"))
    shown = float(shown) if isinstance(default, float) else shown
    assert shown == json.loads(json.dumps(default)), f"{place}: the default is {default!r}"


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("A denoising recipe", DenoisingRecipe),
        ("denoiser", DenoiserConfig),
        ("denoiser.from_config", DenoiserShape),
        ("sampling` of denoising", DenoisingSampling),
        ("sampling.calibration", Calibration),
        ("teach` of denoising", DenoisingTeach),
        ("evaluation` of denoising", DenoisingEvaluation),
        ("A planner's recipe", ControlRecipe),
        ("planner", PlannerConfig),
        ("environment", EnvironmentConfig),
        ("episodes", EpisodesConfig),
        ("evaluation` of planners", ControlEvaluation),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_setting_of_other_recipes_is_there_with_its_default(heading, kind):
    shown, fields = table(heading), dataclasses.fields(kind)
    assert list(shown) == [field.name for field in fields], "the settings, in their order"
    for field in fields:
        default = default_of(field)
        if field.name in WORDS:
            assert shown[field.name] == WORDS[field.name]
        elif default is MISSING:
            assert shown[field.name] == "required", field.name
        elif dataclasses.is_dataclass(default):
            assert re.match(r"\[(above|below)\]\(#", shown[field.name]), field.name
        else:
            assert_same(field.name, shown[field.name], default)


@pytest.mark.parametrize(
    ("heading", "function"), [("method.credit", group_relative), ("method.objective", policy_gradient)]
)
def test_every_option_of_a_part_is_there(heading, function):
    shown, expected = table(heading), options(function)
    assert f"`part: {name_of(function)}`" in PAGE
    assert list(shown) == list(expected)
    for name, default in expected.items():
        if callable(default):
            assert name_of(default).endswith(f".{shown[name].strip('`')}")
        else:
            assert_same(name, shown[name], default)


def test_every_clip_rule_is_there():
    rules = [f for f in vars(clip).values() if inspect.isfunction(f) and f.__module__ == clip.__name__]
    shown = table("method.objective", first="clip rule")
    assert set(shown) == {name_of(rule).removeprefix("objectives.") for rule in rules}
    for rule in rules:
        assert_same(rule.__name__, shown[f"clip.{rule.__name__}"], options(partial(rule)))


def test_every_preset_is_there():
    assert set(table("method", first="preset")) == {k for k, v in vars(presets).items() if isinstance(v, Method)}


def test_every_filter_is_there():
    found = {name: getattr(data, name) for name in data.__all__}
    filters = {name for name, x in found.items() if isinstance(x, type) and issubclass(x, data.Filter)}
    shown = {name for row in table("Which prompts and rollouts", "filter") for name in re.findall(r"\w+", row)} - {
        "data"
    }
    assert shown == filters - {"Filter", "chain"}


@pytest.mark.parametrize("kind", ["scratchpad", "column"])
def test_every_option_of_the_demonstrations_is_there(kind):
    parameters = inspect.signature(getattr(demonstrations, kind)).parameters
    shown = table("teach", first=f"option of `{kind}`")
    assert list(shown) == list(parameters)
    for name, parameter in parameters.items():
        assert_default(name, shown[name], MISSING if parameter.default is parameter.empty else parameter.default)


@pytest.mark.parametrize("text", re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
def test_the_recipes_shown_are_recipes(text, tmp_path):
    data = yaml.safe_load(text)
    if "arms" in data:
        (tmp_path / "shown.yaml").write_text(text.replace("base: ", f"base: {ROOT}/recipes/"))
        assert comparisons.load(tmp_path / "shown.yaml").arms
        return
    if isinstance(data, list):
        data = {"reward": data}
    whole = {"name": "x", "policy": {"path": "x"}, "prompts": {"file": "x"}, "reward": "math.answer", "steps": 1}
    if data.keys() & {"denoiser", "planner"}:
        del whole["policy"]
    if "planner" in data:
        assert recipes.from_data(data).evaluation.episodes > 0
        return
    recipe = recipes.from_data(whole | data)
    assert recipe.load_method().dump()["sampling"]["group"] > 0


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_with_it_are_recipes(path):
    if "arms" in yaml.safe_load(path.read_text()):
        assert comparisons.load(path).seeds == (0, 1, 2)
    else:
        assert recipes.load(path).steps > 0


def test_every_reward_and_shaper_is_there():
    listed: set[str] = set()
    for heading, tables in sections():
        for rows in tables if heading == "reward" else ():
            for cell in (row[0] for row in rows):
                room = ""
                for name in re.findall(r"`([a-z_0-9.]+)`", cell):
                    room, _, own = name.rpartition(".") if "." in name else (room, "", name)
                    listed.add(f"{room}.{own}")
    assert listed == set(names())
