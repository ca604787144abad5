"""The house rules that a reader of one file cannot see: who may import whom, and what is written in one place only."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import privet

SOURCE = Path(privet.__file__).parent
MODULES = {
    ".".join(("privet", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}

# Arrows of import, and no others. What has a dot is a module, the rest are rooms; a room may use itself.
EVERYTHING = {
    "acme",
    "bundle",
    "ca",
    "challenges",
    "cli",
    "client",
    "mtls",
    "server",
    "stores",
    "testing",
    "validation",
    "vault",
}
ARROWS: dict[str, set[str]] = {
    "acme": set(),
    "stores": set(),
    "bundle": {"stores"},
    "ca": {"acme.ed25519", "acme.identifiers", "acme.reasons", "stores", "bundle"},
    "server": {"acme", "ca", "stores"},
    "validation": {"acme"},
    "vault": {"acme", "ca", "server", "stores"},
    "client": {"acme", "ca.csr", "ca.keys", "stores", "bundle"},
    "challenges": {"client"},
    "mtls": {"ca"},
    "testing": {"acme", "ca", "mtls", "server", "stores"},
    "cli": EVERYTHING,
    "__main__": {"cli"},
    "auth_types": {"mtls"},
    "tls": {"mtls"},
    "": EVERYTHING - {"cli"},  # privet/__init__.py offers what the rooms have made
}


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(), filename=str(MODULES[module]))


def imports(tree: ast.AST) -> Iterator[str]:
    """The modules that are imported, whole names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports say the whole name"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def room_of(module: str) -> str:
    return module.removeprefix("privet").removeprefix(".").partition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    room = room_of(module)
    assert room in ARROWS, f"say with an arrow what {room} may import"
    for imported in imports(tree_of(module)):
        if imported.split(".")[0] == "privet":
            target = imported.removeprefix("privet").removeprefix(".")
            allowed = ARROWS[room] | {room}
            assert room_of(imported) in allowed or target in allowed, f"{module} must not import {imported}"


def test_the_arrows_lead_nowhere_twice() -> None:
    """Rooms can be read one after the other, and so can the files of each: nothing leads back."""
    graph = {module: {name for name in imports(tree_of(module)) if name in MODULES} for module in MODULES}
    order = list(TopologicalSorter(graph).static_order())
    assert (
        order.index("privet.acme.identifiers") < order.index("privet.ca.issuer") < order.index("privet.server.orders")
    )


def test_server_and_client_never_see_each_other() -> None:
    assert "client" not in ARROWS["server"]
    assert "server" not in ARROWS["client"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_at_the_top(module: str) -> None:
    """If an import must hide in a function, a module is in the wrong room."""
    tree = tree_of(module)
    top = list(tree.body)
    if module == "privet":  # what it offers on demand, it says to type checkers
        top += [each for node in tree.body if isinstance(node, ast.If) for each in node.body]
    hidden = [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) and node not in top
    ]
    assert not hidden, f"{module}: imports in lines {hidden}"
    first = next((i for i, node in enumerate(tree.body[1:], 1) if not isinstance(node, ast.Import | ast.ImportFrom)), 0)
    late = [node.lineno for node in tree.body[first:] if first and isinstance(node, ast.Import | ast.ImportFrom)]
    assert not late, f"{module}: imports in lines {late}"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_opens_with_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(tree_of(module))
    assert docstring
    assert docstring.splitlines()[0].rstrip().endswith((".", ":", ",")) or "\n" in docstring


def test_public_names_are_sorted_and_there() -> None:
    assert privet.__all__ == sorted(privet.__all__)
    assert len(set(privet.__all__)) == len(privet.__all__)
    for name in privet.__all__:
        assert getattr(privet, name) is not None
    offered = {
        alias.asname or alias.name
        for node in ast.walk(tree_of("privet"))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("privet.")
        for alias in node.names
    }
    assert offered == set(privet.__all__)
    with pytest.raises(AttributeError, match="module 'privet' has no attribute 'nothing'"):
        _ = privet.nothing


def test_a_server_waits_for_no_client_at_its_start() -> None:
    script = (
        "import sys, privet.cli; print([name for name in sys.modules if name.startswith(('httpx', 'privet.client'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("module", MODULES)
def test_whatever_a_module_offers_is_there(module: str) -> None:
    if module != "privet.__main__":
        found = importlib.import_module(module)
        for name in getattr(found, "__all__", []):
            assert hasattr(found, name), f"{module} has no {name}"


def written(pattern: str) -> set[str]:
    return {module for module, path in MODULES.items() if re.search(pattern, path.read_text())}


def test_the_names_of_problems_are_written_once() -> None:
    assert written(r"urn:ietf:params:acme:error") == {"privet.acme.problems"}


def test_josepy_is_used_in_one_place() -> None:
    used = {module for module in MODULES for name in imports(tree_of(module)) if name.split(".")[0] == "josepy"}
    assert used == {"privet.acme.jws"}


def test_statuses_of_refusals_are_in_one_table() -> None:
    """Only problems.py says with which status a refusal is sent."""
    found = {
        f"{module}, line {node.lineno}"
        for module in MODULES
        if room_of(module) in ("acme", "server") and module != "privet.acme.problems"
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.keyword) and node.arg == "status"
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, int) and node.value.value >= 400
    }
    assert not found


def test_only_the_command_line_looks_around() -> None:
    """Everything comes in through constructors: no environment is read, and nothing global changes."""
    found = {
        f"{module}, line {node.lineno}"
        for module in MODULES
        if room_of(module) != "cli"
        for node in ast.walk(tree_of(module))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "argv"))
        or isinstance(node, ast.Global)
        or (isinstance(node, ast.Name) and node.id == "ContextVar")
    }
    assert not found


def test_time_is_an_argument() -> None:
    """The clock is read in one small function of a room, which is the default of an argument."""
    clocks = {
        f"{module}.{function.name}"
        for module in MODULES
        if room_of(module) != "cli"
        for function in ast.walk(tree_of(module))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr)
        in {("datetime", "now"), ("datetime", "utcnow"), ("time", "time"), ("date", "today")}
    }
    assert {clock.rpartition(".")[2] for clock in clocks} <= {"_utc_now", "utc_now"}


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "scripts", "docs"])
def test_what_is_left_to_do_has_an_issue(folder: str) -> None:
    root = Path(__file__).parents[1] / folder
    if not root.is_dir():
        pytest.skip(f"there is no {folder} here")
    mark = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b(?!\(#\d+\)| #\d+|: #\d+)")
    for path in root.rglob("*"):
        if path.suffix in (".py", ".md", ".sh", "") and path.is_file() and "__pycache__" not in path.parts:
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                assert not mark.search(line), f"{path}, line {number}"


def test_the_lessons_are_where_their_page_says() -> None:
    """Each line of docs/lessons.md names tests that are there, and no test speaks of a lesson that is not."""
    tests = Path(__file__).parent
    page = tests.parent / "docs/lessons.md"
    if not page.is_file():
        pytest.skip("there are no docs here")
    lines = [line for line in page.read_text().splitlines() if re.match(r"\| (\d|\S.* \|.*`)", line)]
    assert len(lines) > 40
    for line in lines:
        named = re.findall(r"`([\w/]+\.py)`: ((?:`\w+`(?:, )?)+)", line)
        assert named, line
        for file, names in named:
            text = (tests / file).read_text()
            for name in re.findall(r"`(\w+)`", names):
                assert f"def {name}(" in text, f"{file} has no {name}"
    known = {int(number) for line in lines if (number := line.split("|")[1].strip()).isdigit()}
    for file in tests.rglob("test_*.py"):
        for numbers in re.findall(r"[Ll]essons? ([\d, and]+)", file.read_text()):
            assert {int(number) for number in re.findall(r"\d+", numbers)} <= known, file
