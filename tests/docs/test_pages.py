"""What pages name is there: objects, files and commands; their addresses are well formed."""

import importlib
import inspect
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from propose_prob.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
public_names = importlib.import_module("public_names")
SHORT = {name for page in public_names.pages() for names in page.names.values() for name in names}
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/howto/*.md",
        "tutorials/*.md",
        "propose_prob/weights/*.md",
    )
    for path in ROOT.glob(pattern)
)

#: Readers of binary files that nobody may pass on: an example would have to make them first.
LICENSED = {
    "propose_prob.io.markers.read_c3d",
    "propose_prob.datasets.h36m.read_h36m",
    "propose_prob.datasets.mpi_inf_3dhp.read_mpi_inf_3dhp_test",
    "propose_prob.datasets.mpi_inf_3dhp.read_mpi_inf_3dhp_train",
    "propose_prob.images.spin_images.SpinSource",
    "propose_prob.datasets.threedpw.read_3dpw",
}

#: Directories of the repository that pages name files of; what a build or a run makes is not there.
FOLDERS = ("benchmarks", "docs", "propose_prob", "tests", "tutorials")
MADE = ("docs/_build", "docs/api")


def over_pages(test):
    return pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))(
        test
    )


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def named(target):
    """The object of a dotted name; AttributeError where there is none."""
    parts = target.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise AttributeError(target)


@over_pages
def test_objects_that_a_page_links_to_exist(path):
    for text in re.findall(r"\{py:\w+\}`([^`]+)`", path.read_text()):
        target = re.sub(r"^.*<(.+)>$", r"\1", text).lstrip("~")
        # Short names are found by the site as well, if there is one.
        if target not in SHORT:
            named(target)


@over_pages
def test_objects_that_a_page_links_to_show_their_use(path):
    for text in re.findall(r"\{py:\w+\}`([^`]+)`", path.read_text()):
        target = re.sub(r"^.*<(.+)>$", r"\1", text).lstrip("~")
        if target in SHORT or target in LICENSED:
            continue
        value = named(target)
        module, _, name = target.rpartition(".")
        # A method is shown by its class.
        alone = not inspect.isclass(named(module))
        if alone and (inspect.isclass(value) or inspect.isfunction(value)):
            assert ">>> " in (inspect.getdoc(value) or ""), f"{name}: no example"


@over_pages
def test_files_that_a_page_names_exist(path):
    text = path.read_text()
    paths = re.findall(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", without_code(text))
    for name in paths:
        assert name.startswith(MADE) or (ROOT / name).exists(), name
    shown = re.findall(r"^`{3,}\{(?:image|figure|include|literalinclude)\} (\S+)", text, re.M)
    for name in [*shown, *re.findall(r"\bsrc=\"([^\"]+)\"", text)]:
        made = name.startswith("../view-example")
        assert made or (path.parent / name).exists(), name


def test_entries_of_the_table_of_contents_exist():
    for block in re.findall(
        r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(), re.M | re.S
    ):
        for entry in re.findall(r"^[^:\s].*", block, re.M):
            made = entry.startswith("api/")
            assert made or list(DOCS.glob(f"{entry}.md")), entry


@over_pages
def test_addresses_are_well_formed(path):
    text = path.read_text()
    for address in re.findall(r"\bhttps?://[^\s)>\]\"'`]*", text):
        parts = urlsplit(address.rstrip(".,;:"))
        # Texts of licences are quoted as they are.
        licence = "LICENSE" in path.name or parts.netloc == "www.apache.org"
        assert parts.scheme == "https" or licence, address
        assert re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc), address
    defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.M))
    for name in re.findall(r"\]\[([^\]]+)\]", without_code(text)):
        assert name in defined, f"[{name}] is not defined"


def commands(path):
    """Lines that a reader types, without prompt and comment."""
    for block in re.findall(
        r"^ *```(?:console|bash|sh)\n(.*?)^ *```", path.read_text(), re.M | re.S
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if line.lstrip().startswith("$ "):
                yield from line.lstrip()[2:].split(" && ")


@over_pages
def test_commands_of_a_page_are_understood(path):
    makefile = (ROOT / "Makefile").read_text()
    for line in commands(path):
        words = shlex.split(line, comments=True)
        if words[0] == "torchrun":
            words = ["propose-prob", *words[words.index("propose_prob") + 1 :]]
        if words[0] == "propose-prob" and words[1:] != ["--version"]:
            # Parses and checks options; nothing is run.
            app._parse(words[1:])
        elif words[0] == "make":
            for target in words[1:]:
                assert "=" in target or f"\n{target}:" in makefile, line
        elif words[0] == "python" and words[1].endswith(".py"):
            script = (ROOT / words[1]).read_text()
            for option in re.findall(r"(?<= )--[\w-]+", line.partition("#")[0]):
                written = option[2:].replace("-", "_")
                assert option in script or f"{written}:" in script, f"{line}: {option}"
