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

PAGES = public_names.pages()
NAMES = [(module, name) for page in PAGES for module, names in page.names.items() for name in names]
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


def value_of(module, name):
    return getattr(importlib.import_module(module), name)


def parts_with_all():
    yield propose_prob
    for page in PAGES:
        yield importlib.import_module(page.part)


def test_every_name_of_every_part_is_on_a_page():
    documented = {id(value_of(module, name)) for module, name in NAMES}
    for part in parts_with_all():
        for name in getattr(part, "__all__", ()):
            value = getattr(part, name)
            is_data = inspect.ismodule(value) or isinstance(value, str)
            assert is_data or id(value) in documented, f"{part.__name__}.{name}"


def callables():
    for module, name in NAMES:
        value = value_of(module, name)
        if inspect.isclass(value):
            yield pytest.param(value, id=f"{module}.{name}")
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and isinstance(member, types.FunctionType):
                    yield pytest.param(member, id=f"{module}.{name}.{attribute}")
        elif inspect.isfunction(value):
            yield pytest.param(value, id=f"{module}.{name}")


CALLABLES = list(callables())


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


@pytest.mark.parametrize("value", CALLABLES)
def test_docstrings_explain_the_arguments_there_are(value):
    text = inspect.getdoc(value) or ""
    assert text.strip(), "no docstring"
    arguments = section(text, "Args")
    assert set(arguments or ()) <= set(parameters(value)), "explains an argument that is not there"
    attributes = set(section(text, "Attributes") or ())
    if dataclasses.is_dataclass(value):
        assert attributes <= set(dir(value)) | set(value.__dataclass_fields__)
    elif inspect.isfunction(value) and arguments is None:
        pointed = re.search(r"\bsee `|\bas `|arguments .* are", text)
        assert len(parameters(value)) <= 5 or pointed, "six arguments and no Args section"


#: Readers of data sets need their files; their pages show them.
FILES = {"propose_prob.datasets", "propose_prob.images", "propose_prob.io"}


def exported():
    """Classes and functions that the package or one of its parts exports, each once."""
    found = {}
    for part in parts_with_all():
        if part.__name__ in FILES:
            continue
        for name in getattr(part, "__all__", ()):
            value = getattr(part, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(value, f"{part.__name__}.{name}")
    return [pytest.param(value, id=name) for value, name in found.items()]


@pytest.mark.parametrize("value", exported())
def test_exported_names_show_their_use(value):
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")
    assert examples, "no example"
    # What a function gives back may be shown without naming its class.
    named = any(value.__name__ in example.source for example in examples)
    assert named or inspect.isclass(value), "shows something else"
    assert not any(doctest.SKIP in example.options for example in examples), "never run"


def anchors(path):
    """Anchors of a Markdown file, as GitHub and MyST make them of headings, and its own labels."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = set(re.findall(r"^\(([\w-]+)\)=", text, re.MULTILINE))
    for heading in re.findall(r"^#+ (.*)", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found |= {slug, slug.replace("_", "-")}
    return found


@pytest.mark.parametrize("path", MARKDOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    for target in re.findall(r"\]\(<?([^)\s>]+)>?\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), target


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in MARKDOWN
        if (DOCS in path.parents or path.name == "README.md") and "```python\n" in path.read_text()
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_python_of_a_page_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL)
    exec(compile("\n".join(blocks), str(path), "exec"), {"__name__": "page"})
    assert "Error" not in capsys.readouterr().out


def test_pages_are_in_the_table_of_contents():
    index = (DOCS / "index.md").read_text()
    for path in [*DOCS.glob("*.md"), *DOCS.glob("howto/*.md")]:
        name = str(path.relative_to(DOCS).with_suffix(""))
        assert name == "index" or f"\n{name}\n" in index, name


def test_every_model_card_is_on_the_page_of_models():
    page = (DOCS / "models.md").read_text()
    for card in (ROOT / "propose_prob" / "weights").glob("*.md"):
        assert f"../propose_prob/weights/{card.name}" in page, card.name
