"""The order of imports between the package's folders: every import goes down, none in a circle."""

import ast
from pathlib import Path

import pytest
from repository import REPOSITORY

PACKAGE = REPOSITORY / "d2_isonet"
# A module imports from its own folder and from the folders of earlier lines. Folders of one line
# do not import each other.
ORDER = [
    ("utils",),
    ("config", "distributed"),
    ("layers", "data"),
    ("modeling",),
    ("isometry", "solver", "checkpoint"),
    ("hub", "evaluation"),
    ("preflight",),
    ("engine",),
    ("export", "demo", "reporting"),
    ("commands",),
    ("__main__",),  # the module that runs a command by its name
]
LEVELS = {folder: level for level, folders in enumerate(ORDER) for folder in folders}
# What the package itself offers to every folder: its version, and the names in its __init__.
DOOR = "d2_isonet"


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported_names(source: str, module: str, is_package: bool = False) -> set[str]:
    """The dotted names that a module imports anywhere: at its top, in functions, by importlib."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                ancestors = module.split(".") if is_package else module.split(".")[:-1]
                ancestors = ancestors[: len(ancestors) - node.level + 1]
                base = ".".join(filter(None, [*ancestors, base]))
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {x.value for x in node.args if isinstance(x, ast.Constant)}
    return names


def module_of(name: str) -> str | None:
    """The module of the package that defines this dotted name, None for another package's."""
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name or None


def folder_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else DOOR


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports; a folder's empty __init__ is left out."""
    path = MODULES[module]
    names = imported_names(path.read_text("utf-8"), module, path.stem == "__init__")
    found = {module_of(name) for name in names} - {None, module}
    return {x for x in found if MODULES[x].stem != "__init__" or x == DOOR}


def climbs(module: str, imported: str) -> bool:
    """True if the import leaves its folder in any direction but down."""
    here, there = folder_of(module), folder_of(imported)
    if here == there or there == DOOR:
        return False
    if there not in LEVELS or here not in LEVELS:
        return here != DOOR or there == "commands"
    return LEVELS[there] >= LEVELS[here]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    upward = {x for x in imports_of(module) if climbs(module, x)}
    assert not upward, f"{module} imports {', '.join(sorted(upward))}, against the order"


@pytest.mark.parametrize("module", MODULES)
def test_nothing_in_the_package_imports_tools_or_commands(module):
    path = MODULES[module]
    names = imported_names(path.read_text("utf-8"), module, path.stem == "__init__")
    tools = {x.stem for x in (REPOSITORY / "tools").iterdir() if x.suffix in ("", ".py")}
    found = {name for name in names if name.split(".")[0] in {"tools", "train_net", *tools}}
    if folder_of(module) not in ("commands", "__main__", DOOR):
        found |= {name for name in names if name.startswith("d2_isonet.commands")}
    assert not found


def test_no_circle_of_modules():
    graph = {module: imports_of(module) - {DOOR} for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path, module])}"
        if module not in done:
            for imported in sorted(graph[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_each_folder_has_its_docstring_and_nothing_else():
    for path in sorted(x for x in PACKAGE.rglob("*") if x.is_dir() and list(x.glob("*.py"))):
        if path == PACKAGE:
            continue
        tree = ast.parse((path / "__init__.py").read_text("utf-8"))
        assert ast.get_docstring(tree) and len(tree.body) == 1, f"{path}: one docstring, no import"


def test_every_folder_is_in_the_order():
    folders = {x.name for x in PACKAGE.iterdir() if x.is_dir() and x.name != "__pycache__"}
    assert folders == set(LEVELS) - {"__main__"}


@pytest.mark.parametrize("folder", sorted(x for x in PACKAGE.rglob("*") if x.is_dir()), ids=str)
def test_a_folder_has_at_most_16_entries(folder):
    if folder.name == "__pycache__":
        return
    entries = {x.name for x in folder.iterdir()} - {"__init__.py", "__pycache__"}
    assert len(entries) <= (18 if folder == PACKAGE else 16)


@pytest.mark.parametrize(
    ("source", "module", "imported"),
    [
        (
            "def f():\n    from ..engine import trainer",
            "d2_isonet.data.x",
            "d2_isonet.engine.trainer",
        ),
        (
            "from d2_isonet.engine.trainer import Trainer",
            "d2_isonet.data.x",
            "d2_isonet.engine.trainer",
        ),
        ("import d2_isonet.engine.trainer", "d2_isonet.data.x", "d2_isonet.engine.trainer"),
        ("from . import sampling", "d2_isonet.data.x", "d2_isonet.data.sampling"),
    ],
)
def test_every_form_of_import_is_read(source, module, imported):
    assert imported in {module_of(x) for x in imported_names(source, module)}
    assert climbs(module, imported) == ("engine" in imported)
