"""What a leaf's scores depend on besides the columns it reads: the name they are kept under in the cache."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib import metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, NamedTuple

import guerdon
from guerdon.algebra.function import FunctionLeaf
from guerdon.algebra.leaf import Leaf, Learned
from guerdon.algebra.spec import dump
from guerdon.core.errors import SpecError

_LIBRARIES = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class Source(NamedTuple):
    """A module's file as it was when it was first asked about since the module was loaded."""

    loaded: ModuleSpec
    digest: str
    imports: list[str]


_sources: dict[str, Source] = {}


def identity(leaf: Leaf) -> str | None:
    """A text that changes with a leaf's options, weights and code; None for a leaf that none can stand for.

    That is one that is no spec (it holds a lambda or an open client, or is defined in a script or a
    notebook), or reads more than columns (the context, tokens, a model); also a class in the batch lane,
    which is given whole rollouts, unless it says itself what it reads by a method `identity` of its own.
    The code is guerdon's, with the versions of the libraries it uses, and for a part or an option from
    elsewhere its module with all modules that this imports, libraries by their version. What is edited
    after a process has begun to use it does not count in that process until it is reloaded. Of files, those
    that an option names count, and those in a folder that it names, by their size and time; what else a
    part finds in files or on servers never does.

    >>> from guerdon.rewards import math
    >>> identity(math.answer(tolerance=1e-6)) == identity(math.answer(tolerance=1e-3))
    False
    """
    if leaf.requires - set(leaf.reads) or {"context", "rollouts"} & set(leaf.reads):
        return None
    options: dict[str, Any] = leaf.options if isinstance(leaf, FunctionLeaf) else {}
    part = leaf.factory.function if isinstance(leaf, FunctionLeaf) else type(leaf)
    if leaf.lane == "batch" and isinstance(part, type):
        return None
    try:
        spec, version = dump(leaf), leaf.version if isinstance(leaf, Learned) else None
        modules = {one.__module__ for one in (part, *_functions(options))}
        return repr((spec, version, _code(modules), list(_files(options))))
    except (SpecError, OSError):
        return None


def _functions(option: Any) -> Iterator[Callable[..., Any]]:
    """The functions in an option."""
    if inspect.isfunction(option):
        yield option
    elif isinstance(option, Mapping | list | tuple):
        for one in option.values() if isinstance(option, Mapping) else option:
            yield from _functions(one)


def _files(option: Any) -> Iterator[tuple[str, int, int]]:
    """The files that an option names, and those in a folder that it names: path, size and time."""
    if isinstance(option, Mapping | list | tuple):
        for one in option.values() if isinstance(option, Mapping) else option:
            yield from _files(one)
    elif isinstance(option, str | Path) and len(str(option)) < 4096 and "\0" not in str(option):
        path = Path(option)
        for file in sorted(path.iterdir()) if str(option) and path.is_dir() else [path]:
            if file.is_file():
                state = file.stat()
                yield str(file), state.st_size, state.st_mtime_ns


def _code(parts: set[str]) -> list[str]:
    """Digests and versions of all the code that the modules of some parts stand on."""
    libraries = {guerdon.__name__: _guerdon()}
    own: dict[str, str] = {}
    ahead = sorted(part for part in parts if not part.startswith("guerdon."))
    while ahead:
        name = ahead.pop()
        top = name.partition(".")[0]
        if top in libraries or name in own:
            continue
        if name not in parts and _is_library(top):
            libraries[top] = f"{top} {_version(top)}"
        elif (spec := _spec(name)) is not None and spec.has_location:
            source = _source(name, spec)
            own[name] = f"{name} {source.digest}"
            ahead += [*source.imports, name.rpartition(".")[0] or name]
    return sorted((libraries | own).values())


def _spec(name: str) -> ModuleSpec | None:
    """Where a module is loaded from, or would be; nothing is imported to find out."""
    if name in sys.modules:
        return sys.modules[name].__spec__
    parent = name.rpartition(".")[0]
    if parent and not hasattr(sys.modules.get(parent), "__path__"):
        return None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _is_library(top: str) -> bool:
    spec = _spec(top)
    if spec is None or spec.origin is None:  # a package without a file of its own is where its parts are
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        return bool(places) and places[0].startswith(_LIBRARIES)
    return not spec.has_location or spec.origin.startswith(_LIBRARIES)


def _source(name: str, spec: ModuleSpec) -> Source:
    if name not in _sources or _sources[name].loaded is not spec:
        content = Path(str(spec.origin)).read_bytes()
        package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
        _sources[name] = Source(spec, sha256(content).hexdigest(), list(_imports(content, package)))
    return _sources[name]


def _imports(content: bytes, package: str) -> Iterator[str]:
    """The modules, and what may be modules, that a source imports anywhere."""
    try:
        nodes = list(ast.walk(ast.parse(content)))
    except (SyntaxError, ValueError):  # compiled, not Python
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            written = "." * node.level + (node.module or "")
            module = importlib.util.resolve_name(written, package) if package or not node.level else ""
            yield from (module, *(f"{module}.{alias.name}" for alias in node.names))


@cache
def _guerdon() -> str:
    """guerdon's sources, for whoever works on them, and the versions of Python and of what guerdon depends on."""
    digest = sha256(sys.version.encode())
    folder = Path(guerdon.__file__).parent
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        digest.update(repr((str(file.relative_to(folder)), file.read_bytes())).encode())
    for needed in sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in metadata.requires("guerdon") or []}):
        digest.update(f"{needed} {_version(needed)}\n".encode())
    return f"guerdon {guerdon.__version__} {digest.hexdigest()}"


def _version(library: str) -> str:
    """The version of an installed library; nothing if it is not installed, or under another name."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(library), "__version__", ""))
