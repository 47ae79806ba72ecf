"""What importing the package does, which part may import which, and that a name occurs once."""

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import propose_prob

ROOT = Path(propose_prob.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

#: Which part may import which, besides itself: the arrows of the architecture. `cli` may use all.
FOUNDATION = {"errors", "io", "_shipped"}
ALLOWED = {
    "errors": set(),
    "_zuko": set(),
    "_path": set(),
    "_shipped": {"errors", "io"},
    "devices": {"errors"},
    "configuration": {"errors"},
    "geometry": {"errors"},
    "nn": {"errors"},
    "io": {"errors", "geometry"},
    "transforms": {"errors", "_zuko"},
    "distributions": {"errors", "geometry", "transforms"},
    "conditional": {"errors", "_zuko", "nn", "transforms", "distributions"},
    "results": FOUNDATION,
    "bodies": FOUNDATION | {"geometry"},
    "datasets": FOUNDATION | {"geometry", "bodies"},
    "models": {"errors", "geometry", "nn", "transforms", "distributions", "conditional", "bodies"}
    | {"configuration", "io", "_shipped"},
    "weights": FOUNDATION | {"configuration", "models"},
    "inference": FOUNDATION | {"geometry", "transforms", "distributions", "results"},
    "evaluation": FOUNDATION | {"geometry", "transforms", "distributions", "datasets", "inference"},
    "plotting": FOUNDATION | {"geometry", "distributions", "bodies", "evaluation", "results"},
    "training": FOUNDATION
    | {"devices", "geometry", "nn", "transforms", "distributions", "conditional", "bodies"}
    | {"configuration", "models", "datasets", "evaluation", "weights"},
    "tasks": FOUNDATION
    | {"geometry", "distributions", "conditional", "bodies", "models", "inference", "results"}
    | {"weights"},
    # An extra: whatever it needs, and nothing of the core needs it.
    "images": FOUNDATION
    | {"devices", "geometry", "nn", "distributions", "bodies", "models", "datasets", "training"}
    | {"configuration", "plotting", "evaluation", "weights"},
}
COMMANDS = {"cli", "__main__", "__init__"}


@functools.cache
def tree(path):
    return ast.parse(path.read_text())


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_modules(path):
    """Dotted modules of this package that a file imports, wherever in the file that happens."""
    package = ["propose_prob", *path.relative_to(ROOT).parent.parts]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            # `from .. import objectives` names the part itself.
            found |= {".".join([*base, alias.name]) for alias in node.names}
    return {name for name in found if name.startswith("propose_prob.")}


def test_arrows_go_one_way():
    wrong = []
    for path in MODULES:
        part = part_of(path)
        if part in COMMANDS:
            continue
        assert part in ALLOWED, f"{part} is new: say in this test what it may import"
        reached = {name.split(".")[1] for name in imported_modules(path)}
        wrong += [
            f"{path.relative_to(ROOT)} must not import {other}"
            for other in sorted(reached - ALLOWED[part] - {part, "__version__"})
        ]
    assert not wrong


def cycle(graph):
    """A trail that returns to where it began, or None."""
    done = set()

    def visit(node, trail):
        if node in trail:
            return [*trail[trail.index(node) :], node]
        if node not in done:
            for other in sorted(graph.get(node, ())):
                found = visit(other, [*trail, node])
                if found:
                    return found
            done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := visit(node, []))), None)


def test_there_is_no_cycle():
    assert cycle(ALLOWED) is None
    names = {
        ".".join(["propose_prob", *path.relative_to(ROOT).with_suffix("").parts]): path
        for path in MODULES
        if path.name != "__init__.py"
    }
    graph = {}
    for name, path in names.items():
        found = imported_modules(path)
        # A name in a module, or the module itself.
        graph[name] = {n for n in names for f in found if f == n or f.rpartition(".")[0] == n}
    assert cycle(graph) is None


def test_the_core_never_imports_images():
    """Except by name, where a model asks for its encoder; the extra may then be missing."""
    core = [path for path in MODULES if part_of(path) not in COMMANDS | {"images"}]
    assert not [path for path in core if any(".images" in n for n in imported_modules(path))]


def defined(path):
    """Public classes and functions of a module."""
    return [
        node
        for node in tree(path).body
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
    ]


def test_a_name_occurs_once():
    """Of modules and public classes; a command may carry the name of the task that it calls."""
    places = defaultdict(list)
    for path in MODULES:
        if part_of(path) == "cli":
            continue
        if path.name != "__init__.py":
            places[path.stem].append(path)
        for node in defined(path):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(path)
    twice = {name: found for name, found in places.items() if len(found) > 1}
    assert not twice


def test_no_function_hides_its_module():
    hidden = []
    for path in MODULES:
        if path.name != "__init__.py":
            continue
        siblings = {p.stem for p in path.parent.glob("*.py")} | {
            p.name for p in path.parent.iterdir() if p.is_dir()
        }
        for node in tree(path).body:
            if isinstance(node, ast.ImportFrom):
                names = {alias.asname or alias.name for alias in node.names}
                hidden += [f"{path.parent.name}.{name}" for name in names & siblings]
    assert not hidden


def test_only_one_file_imports_zuko():
    assert [
        path.name
        for path in MODULES
        if "from zuko" in path.read_text() or "import zuko" in path.read_text()
    ] == ["_zuko.py"]


def python(code):
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_importing_leaves_torch_as_it_was_and_loads_nothing_heavy():
    code = """
import sys, torch, pyro
from torch.distributions import Distribution, Normal
validate = Distribution._validate_args
constraints = Distribution.__dict__["arg_constraints"]
default, threads, grad = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
state = torch.get_rng_state()
before = set(sys.modules)
import propose_prob
assert Distribution._validate_args is validate is True, Distribution._validate_args
assert Distribution.__dict__["arg_constraints"] is constraints
try:
    Normal(torch.zeros(1), -torch.ones(1))
except ValueError:
    pass
else:
    raise AssertionError("argument validation is off")
assert torch.get_default_dtype() == default
assert torch.get_num_threads() == threads
assert torch.is_grad_enabled() == grad
assert torch.equal(torch.get_rng_state(), state)
new = {name.split(".")[0] for name in set(sys.modules) - before}
heavy = new & {"arviz", "xarray", "matplotlib", "scipy", "pandas", "PIL", "tyro", "h5py", "roma"}
assert not heavy, heavy
"""
    python(code)


def test_importing_zuko_alone_would_not_leave_torch_as_it_was():
    """The reason for the file that wraps it; when this fails, zuko can be imported directly."""
    code = """
from torch.distributions import Distribution
before = Distribution._validate_args
import zuko
print(before, Distribution._validate_args)
"""
    assert python(code) == "True False"


def test_public_names_exist():
    for name in propose_prob.__all__:
        assert getattr(propose_prob, name) is not None


def test_the_version_is_in_one_place():
    """Outside of `__init__.py` nothing that builds, installs or cites the package repeats it."""
    project = ROOT.parent
    for name in ("pyproject.toml", "CITATION.cff", "docs/conf.py", "Makefile"):
        assert propose_prob.__version__ not in (project / name).read_text(), name
    found = [path for path in MODULES if f'"{propose_prob.__version__}"' in path.read_text()]
    assert found == [ROOT / "__init__.py"]
