"""What the documentation says is so. The examples in docs/ are collected by pytest itself."""

import ast
import doctest
import importlib
import inspect
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import typer
import yaml

from guerdon.algebra import spec
from guerdon.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SCRIPTS = [path for folder in ("recipes", "examples", "benchmarks") for path in sorted((ROOT / folder).glob("*.py"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def each(pages):
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


each_page = each(PAGES)


def blocks(page, language):
    return [text for name, text in FENCE.findall(page.read_text("utf-8")) if name == language]


def programs(page):
    """Python that is shown without being run: it needs a model, or data."""
    return [text for text in blocks(page, "python") if ">>>" not in text]


def prose(page):
    return FENCE.sub("", page.read_text("utf-8"))


def test_the_examples_of_the_readme_run():
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(str(ROOT / "README.md"), module_relative=False, optionflags=options, encoding="utf-8")
    assert result.attempted > 0
    assert result.failed == 0, "what differed is on stdout"


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.is_relative_to(ROOT), f"{target} leads out of the repository"
        assert place.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(place), f"{place.name} has no heading for #{anchor}"


def anchors(page):
    """Headings as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_page_is_in_the_index(page):
    index = (ROOT / "docs" / "README.md").read_text("utf-8")
    assert page.name in ("README.md", *re.findall(r"\]\(([^)]+)\)", index))


@each_page
def test_commands_have_the_options_shown(page):
    root = typer.main.get_command(app)
    shown = [line.partition("  #")[0] for text in blocks(page, "sh") for line in text.splitlines()]
    shown += re.findall(r"`([^`\n]+)`", prose(page))
    for line in shown:
        found = re.search(r"\sguerdon (\S.*)", f" {line}")
        if found is None:
            continue
        name, *arguments = shlex.split(found[1])
        if name.startswith("-"):
            check(root, [name], line)
        elif name != "COMMAND":
            assert name in root.commands, f"guerdon has no command {name!r}: {line}"
            check(root.commands[name], arguments, line)


def check(command, arguments, line):
    """Every option shown exists, has its value, and there are no more arguments than the command takes."""
    options = {opt: param for param in command.params for opt in param.opts if opt.startswith("-")}
    takes = sum(param.param_type_name == "argument" for param in command.params)
    given, words = set(), iter(arguments)
    for word in words:
        if word.startswith("-") and word != "--help":
            assert word in options, f"guerdon {command.name} has no {word}: {line}"
            given.add(options[word].name)
            if not options[word].is_flag:
                assert next(words, None) is not None, f"{word} has no value: {line}"
        elif word != "--help":
            takes -= 1
    assert takes >= 0, f"too many arguments: {line}"
    if "--help" not in arguments and arguments:
        missing = [opt for opt, param in options.items() if param.required and param.name not in given]
        assert not missing, f"{missing} must be given: {line}"


@each([page for page in PAGES if programs(page)])
def test_programs_import_what_exists_and_call_it_as_it_is(page):
    for text in programs(page):
        check_program(text)


@each(SCRIPTS)
def test_scripts_import_what_exists_and_call_it_as_it_is(page):
    check_program(page.read_text("utf-8"))


def check_program(text):
    """Everything of guerdon that a program imports exists, and what it calls by name takes the keywords given."""
    names = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "guerdon":
            package = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(package, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                names[alias.asname or alias.name] = getattr(package, alias.name)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            given = [value for value in node.args if not isinstance(value, ast.Starred)]
            keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg is not None}
            inspect.signature(names[node.func.id]).bind_partial(*given, **keywords)


@each_page
def test_what_is_named_as_a_part_is_one(page):
    words = re.findall(r"`((?:math|format|text|shaping|credit|objectives)\.[a-z_]+(?:\.[a-z_]+)?)`", prose(page))
    for word in words:
        module, _, attribute = word.rpartition(".")
        room = "" if module.split(".")[0] in ("shaping", "credit", "objectives") else "rewards."
        assert hasattr(importlib.import_module(f"guerdon.{room}{module}"), attribute), f"there is no part {word}"


def test_the_rewards_shown_as_data_load():
    texts = blocks(ROOT / "docs" / "recipes.md", "yaml")
    rewards = [data for data in map(yaml.safe_load, texts) if isinstance(data, list)]
    assert rewards
    for data in rewards:
        assert spec.load(spec.dump(spec.load(data))) == spec.load(data)


def test_the_extras_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    install = (ROOT / "docs" / "install.md").read_text("utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", install, re.MULTILINE)) == set(project["optional-dependencies"])
    for page in PAGES:
        for extra in re.findall(r"guerdon\[(\w+)\]", page.read_text("utf-8")):
            assert extra in project["optional-dependencies"], f"{page.name}: there is no guerdon[{extra}]"
