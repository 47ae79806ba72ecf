"""What pages name is there: objects, files and commands; their addresses are well formed."""

import importlib
import re
import shlex
import sys
from pathlib import Path
from urllib.parse import urlsplit

from propose_prob.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
public_names = importlib.import_module("public_names")
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

#: Directories of the repository that pages name files of; what a build or a run makes is not there.
FOLDERS = ("benchmarks", "docs", "propose_prob", "tests", "tutorials")
MADE = ("docs/_build", "docs/api")


def over_pages(wrong):
    """What is wrong with any page, each with the page's name."""
    assert len(PAGES) > 40
    return [
        f"{path.relative_to(ROOT).as_posix()}: {text}" for path in PAGES for text in wrong(path)
    ]


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


def unknown_objects(path):
    """Objects that a page links to and that are not there."""
    # Short names are found by the site as well, if there is one.
    short = {
        name for page in public_names.pages() for names in page.names.values() for name in names
    }
    for text in re.findall(r"\{py:\w+\}`([^`]+)`", path.read_text()):
        target = re.sub(r"^.*<(.+)>$", r"\1", text).lstrip("~")
        try:
            if target not in short:
                named(target)
        except AttributeError:
            yield target


def unknown_files(path):
    """Files that a page names or shows and that are not there."""
    text = path.read_text()
    paths = re.findall(rf"(?<![\w./-])((?:{'|'.join(FOLDERS)})/[\w./-]*\w)", without_code(text))
    for name in paths:
        if not name.startswith(MADE) and not (ROOT / name).exists():
            yield name
    shown = re.findall(r"^`{3,}\{(?:image|figure|include|literalinclude)\} (\S+)", text, re.M)
    for name in [*shown, *re.findall(r"\bsrc=\"([^\"]+)\"", text)]:
        if not name.startswith("../view-example") and not (path.parent / name).exists():
            yield name


def wrong_addresses(path):
    """Addresses of a page that are not well formed, and names of links that it does not define."""
    text = path.read_text()
    for address in re.findall(r"\bhttps?://[^\s)>\]\"'`]*", text):
        parts = urlsplit(address.rstrip(".,;:"))
        # Texts of licences are quoted as they are.
        licence = "LICENSE" in path.name or parts.netloc == "www.apache.org"
        well_formed = re.fullmatch(r"([\w-]+\.)+[a-z]{2,}", parts.netloc)
        if not well_formed or not (parts.scheme == "https" or licence):
            yield address
    defined = set(re.findall(r"^\[([^\]]+)\]: ", text, re.M))
    for name in re.findall(r"\]\[([^\]]+)\]", without_code(text)):
        if name not in defined:
            yield f"[{name}] is not defined"


def commands(path):
    """Lines that a reader types, without prompt and comment."""
    for block in re.findall(
        r"^ *```(?:console|bash|sh)\n(.*?)^ *```", path.read_text(), re.M | re.S
    ):
        for line in block.replace("\\\n", " ").splitlines():
            if line.lstrip().startswith("$ "):
                yield from line.lstrip()[2:].split(" && ")


def unknown_commands(path):
    """Commands of a page that the command line, the Makefile or a script does not understand."""
    makefile = (ROOT / "Makefile").read_text()
    for line in commands(path):
        words = shlex.split(line, comments=True)
        if words[0] == "torchrun":
            words = ["propose-prob", *words[words.index("propose_prob") + 1 :]]
        if words[0] == "propose-prob" and words[1:] != ["--version"]:
            try:
                # Parses and checks options; nothing is run.
                app._parse(words[1:])
            except (Exception, SystemExit) as error:
                yield f"{line}: {error!r}"
        elif words[0] == "make":
            for target in words[1:]:
                if "=" not in target and f"\n{target}:" not in makefile:
                    yield line
        elif words[0] == "python" and words[1].endswith(".py"):
            script = (ROOT / words[1]).read_text()
            for option in re.findall(r"(?<= )--[\w-]+", line.partition("#")[0]):
                written = option[2:].replace("-", "_")
                if option not in script and f"{written}:" not in script:
                    yield f"{line}: {option}"


def test_objects_that_pages_link_to_exist():
    assert not over_pages(unknown_objects)


def test_files_that_pages_name_exist():
    assert not over_pages(unknown_files)


def test_addresses_are_well_formed():
    assert not over_pages(wrong_addresses)


def test_commands_of_pages_are_understood():
    assert not over_pages(unknown_commands)


def test_mistakes_of_a_page_are_found(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(
        "{py:obj}`~propose_prob.models.Nothing` {py:obj}`load <propose_prob.load>`\n"
        "docs/index.md docs/gone.md\n"
        "<https://example.org/a> <http://example.org> <https://example> [a][b]\n"
        "```console\n$ propose-prob lift --nothing\n$ make test && make nothing\n```\n"
    )
    assert list(unknown_objects(page)) == ["propose_prob.models.Nothing"]
    assert list(unknown_files(page)) == ["docs/gone.md"]
    assert list(wrong_addresses(page)) == [
        "http://example.org",
        "https://example",
        "[b] is not defined",
    ]
    first, second = unknown_commands(page)
    assert first.startswith("propose-prob lift --nothing")
    assert second == "make nothing"


def test_entries_of_the_table_of_contents_exist():
    index = (DOCS / "index.md").read_text()
    blocks = re.findall(r"^```\{toctree\}\n(.*?)^```", index, re.M | re.S)
    entries = [entry for block in blocks for entry in re.findall(r"^[^:\s].*", block, re.M)]
    assert entries
    assert not [
        entry
        for entry in entries
        if not entry.startswith("api/") and not list(DOCS.glob(f"{entry}.md"))
    ]
