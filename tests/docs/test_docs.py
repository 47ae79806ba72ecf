"""The documentation names every public name, its links lead somewhere, and its Python runs."""

import dataclasses
import doctest
import importlib
import inspect
import re
import sys
import types
from pathlib import Path

import pytest

import propose_prob

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
public_names = importlib.import_module("public_names")

MARKDOWN = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "docs/howto/*.md",
        "docs/tutorials/*.md",
        "propose_prob/**/*.md",
    )
    for path in ROOT.glob(pattern)
)
RUN = [
    path
    for path in MARKDOWN
    if (DOCS in path.parents or path.name == "README.md") and "```python\n" in path.read_text()
]


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def documented_names():
    """Dotted name and value of every name that the API reference documents."""
    for page in public_names.pages():
        for module, names in page.names.items():
            for name in names:
                yield f"{module}.{name}", getattr(importlib.import_module(module), name)


def parts_with_all():
    yield propose_prob
    for page in public_names.pages():
        yield importlib.import_module(page.part)


def test_every_name_of_every_part_is_on_a_page():
    documented = {id(value) for _, value in documented_names()}
    missing = [
        f"{part.__name__}.{name}"
        for part in parts_with_all()
        for name in getattr(part, "__all__", ())
        if not inspect.ismodule(value := getattr(part, name))
        and not isinstance(value, str)
        and id(value) not in documented
    ]
    assert not missing


def callables():
    """Dotted name and value of the documented functions, classes and public methods."""
    for name, value in documented_names():
        if inspect.isclass(value):
            yield name, value
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and isinstance(member, types.FunctionType):
                    yield f"{name}.{attribute}", member
        elif inspect.isfunction(value):
            yield name, value


def parameters(value):
    """Names that a caller can pass, without those of the class machinery."""
    try:
        names = inspect.signature(value).parameters
    except ValueError:
        return []
    return [name for name in names if name not in ("self", "cls", "_instance")]


def section(text, title):
    """Names that an `Args:` or `Attributes:` section explains; None without such a section."""
    match = re.search(rf"^{title}:\n((?:(?: +.*)?\n?)*)", text, re.MULTILINE)
    if match is None:
        return None
    return re.findall(r"^    \*{0,2}(\w+)(?: \([^)]*\))?:", match[1], re.MULTILINE)


def mistakes(value):
    """What is wrong with a docstring."""
    text = inspect.getdoc(value) or ""
    if not text.strip():
        yield "no docstring"
    arguments = section(text, "Args")
    for name in sorted(set(arguments or ()) - set(parameters(value))):
        yield f"explains {name}, which is no argument"
    if dataclasses.is_dataclass(value):
        there = set(dir(value)) | set(value.__dataclass_fields__)
        for name in sorted(set(section(text, "Attributes") or ()) - there):
            yield f"explains {name}, which is no attribute"
    elif inspect.isfunction(value) and arguments is None:
        pointed = re.search(r"\bsee `|\bas `|arguments .* are", text)
        if len(parameters(value)) > 5 and not pointed:
            yield "six arguments and no Args section"


def test_docstrings_explain_the_arguments_there_are():
    found = list(callables())
    assert len(found) > 500
    assert not [f"{name}: {text}" for name, value in found for text in mistakes(value)]


def test_mistakes_of_docstrings_are_found():
    def bare(a):
        pass

    def wrong(a):
        """Does it.

        Args:
            b: Not there.
        """

    def long(a, b, c, d, e, f):
        """Does it."""

    @dataclasses.dataclass
    class Point:
        """A point.

        Attributes:
            y: Not there.
        """

        x: int

    assert list(mistakes(bare)) == ["no docstring"]
    assert list(mistakes(wrong)) == ["explains b, which is no argument"]
    assert list(mistakes(long)) == ["six arguments and no Args section"]
    assert list(mistakes(Point)) == ["explains y, which is no attribute"]


#: Readers of data sets need their files; their pages show them.
FILES = {"propose_prob.datasets", "propose_prob.images", "propose_prob.io"}


def exported():
    """Classes and functions that the package or one of its parts exports, with a dotted name."""
    found = {}
    for part in parts_with_all():
        if part.__name__ in FILES:
            continue
        for name in getattr(part, "__all__", ()):
            value = getattr(part, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(value, f"{part.__name__}.{name}")
    return found


def example_mistake(value):
    """What is wrong with the examples of an exported name, or None."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")
    if not examples:
        return "no example"
    # What a function gives back may be shown without naming its class.
    if not inspect.isclass(value) and not any(value.__name__ in e.source for e in examples):
        return "shows something else"
    return "never run" if any(doctest.SKIP in e.options for e in examples) else None


def test_exported_names_show_their_use():
    found = exported()
    assert len(found) > 100
    wrong = {name: example_mistake(value) for value, name in found.items()}
    assert not {name: text for name, text in wrong.items() if text}


def test_mistakes_of_examples_are_found():
    def none():
        """No example."""

    def other():
        """Another.

        >>> max(1, 2)
        2
        """

    def skipped():
        """Not run.

        >>> skipped()  # doctest: +SKIP
        """

    assert example_mistake(none) == "no example"
    assert example_mistake(other) == "shows something else"
    assert example_mistake(skipped) == "never run"
    assert example_mistake(propose_prob.load) is None


def anchors(path):
    """Anchors of a Markdown file, as GitHub and MyST make them of headings, and its own labels."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = set(re.findall(r"^\(([\w-]+)\)=", text, re.MULTILINE))
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found |= {slug, slug.replace("_", "-")}
    return found


def dead_links(path):
    """Relative links of a Markdown file that lead nowhere."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    for target in re.findall(r"\]\(<?([^)\s>]+)>?\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        known = anchors(place) if anchor and place.suffix == ".md" and place.exists() else {anchor}
        if not place.exists() or anchor not in known:
            yield target


def test_links_lead_somewhere():
    assert len(MARKDOWN) > 40
    assert not [f"{name_of(path)}: {link}" for path in MARKDOWN for link in dead_links(path)]


def test_dead_links_are_found(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    other.write_text("# One `two`\n")
    page.write_text("[a](other.md#one-two) [b](other.md#three) [c](gone.md) [d](https://x.org)")
    assert list(dead_links(page)) == ["other.md#three", "gone.md"]


@pytest.mark.parametrize("path", RUN, ids=name_of)
def test_python_of_a_page_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), str(path), "exec"), {"__name__": "page"})
    assert "Error" not in capsys.readouterr().out


def test_pages_are_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    names = [
        str(path.relative_to(DOCS).with_suffix(""))
        for path in [*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")]
    ]
    assert not [name for name in names if name != "index" and f"\n{name}\n" not in index]


def test_every_model_card_is_on_the_page_of_models():
    page = (DOCS / "models.md").read_text()
    cards = [card.name for card in (ROOT / "propose_prob" / "weights").glob("*.md")]
    assert not [name for name in cards if f"../propose_prob/weights/{name}" not in page]
