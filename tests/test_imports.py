"""What importing the package does, and which part may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import propose_prob

ROOT = Path(propose_prob.__file__).parent
MODULES = sorted(p for p in ROOT.rglob("*.py"))

#: Which part may import which, besides itself: the arrows of the architecture. `cli` may use all.
FOUNDATION = {"errors", "_files", "_archives", "_sandbox", "_shipped", "_atomic"}
ALLOWED = {
    "errors": set(),
    "_path": set(),
    "_atomic": {"errors"},
    "_files": {"errors"},
    "_archives": {"errors", "_files"},
    "_shipped": {"errors", "_files"},
    "_sandbox": {"errors", "_archives"},
    "_sandboxed": set(),
    "devices": FOUNDATION,
    "_zuko": set(),
    "_unpickle": FOUNDATION,
    "networks": FOUNDATION,
    "pose": FOUNDATION,
    "transforms": FOUNDATION | {"_zuko"},
    "distributions": FOUNDATION | {"pose", "transforms"},
    "conditional": FOUNDATION | {"_zuko", "networks", "transforms", "distributions"},
    "models": FOUNDATION
    | {"networks", "pose", "transforms", "distributions", "conditional", "bodies"},
    "bodies": FOUNDATION | {"pose", "_unpickle"},
    "data": FOUNDATION | {"pose", "bodies", "_unpickle"},
    "inference": FOUNDATION | {"pose", "transforms", "distributions", "data"},
    "evaluation": FOUNDATION | {"pose", "transforms", "distributions", "data", "inference"},
    "weights": FOUNDATION | {"models"},
    "visualisation": FOUNDATION
    | {"pose", "distributions", "bodies", "data", "evaluation", "inference"},
    "training": FOUNDATION
    | {"pose", "transforms", "distributions", "conditional", "models", "networks"}
    | {"data", "evaluation", "weights", "devices", "bodies"},
    "tasks": FOUNDATION
    | {"pose", "distributions", "conditional", "models", "bodies"}
    | {"data", "inference", "weights"},
}


def part_of(path):
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported_parts(path):
    """Parts of this package that a file imports, wherever in the file that happens."""
    package = ["propose_prob", *path.relative_to(ROOT).parent.parts]
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            # `from .. import objectives` names the part itself.
            names += [base + [alias.name] for alias in node.names]
    return {name[1] for name in names if name[0] == "propose_prob" and len(name) > 1}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_arrows_go_one_way(path):
    part = part_of(path)
    if part in ("cli", "__main__", "__init__"):
        return
    assert part in ALLOWED, f"{part} is new: say in this test what it may import"
    wrong = imported_parts(path) - ALLOWED[part] - {part}
    assert not wrong, f"{path.relative_to(ROOT)} must not import {', '.join(sorted(wrong))}"


def test_the_arrows_have_no_cycle():
    done = set()

    def visit(part, trail):
        assert part not in trail, f"cycle: {' -> '.join([*trail, part])}"
        if part not in done:
            for other in ALLOWED[part]:
                visit(other, [*trail, part])
            done.add(part)

    for part in ALLOWED:
        visit(part, [])


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_only_one_file_imports_zuko(path):
    if path.name != "_zuko.py":
        source = path.read_text()
        assert "from zuko" not in source and "import zuko" not in source


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
