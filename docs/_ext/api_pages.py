"""The API reference: pages written from the package itself, so that no public name is left out."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

from docutils import nodes
from public_names import PACKAGE, pages
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def _write(app: Sphinx) -> None:
    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    written = {page.file: page.text() for page in pages()}
    written["index.rst"] = _index(sorted(written))
    for name, text in written.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    for path in folder.glob("*.rst"):
        if path.name not in written:
            path.unlink()


def _index(files: list[str]) -> str:
    root: Any = importlib.import_module(PACKAGE)
    lines = ["API reference", "=============", ""]
    lines += [
        "Written from the docstrings: each part of the package has a page with every public name,",
        "its arguments, shapes, units and errors.",
        "",
        ".. list-table:: Names that ``import propose_prob`` gives at once",
        "   :widths: 30 70",
        "",
    ]
    for name in sorted(root.__all__):
        value = getattr(root, name)
        if isinstance(value, str):
            lines += [f"   * - ``{PACKAGE}.{name}``", f"     - {value}"]
            continue
        where = value.__name__ if inspect.ismodule(value) else f"{_home(value)}.{name}"
        role = ":py:mod:" if inspect.ismodule(value) else ":py:obj:"
        summary = (inspect.getdoc(value) or "").splitlines()[0]
        lines += [f"   * - {role}`~{where}`", f"     - {summary}"]
    lines += ["", ".. toctree::", "   :caption: Parts", "   :maxdepth: 1", ""]
    return "\n".join([*lines, *(f"   {file.removesuffix('.rst')}" for file in files), ""])


def _home(value: Any) -> str:
    """The part under which an object is documented."""
    return ".".join(value.__module__.split(".")[:2])


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Links a short name such as `ProPose.conditional`, if it means one thing."""
    if node.get("refdomain") != "py" or node.get("reftype") not in ("obj", "class"):
        return None
    target = node["reftarget"].removesuffix("()")
    if not target[:1].isupper() and "." not in target:
        return None
    domain = env.domains.python_domain
    found = [name for name in domain.objects if name.endswith(f".{target}")]
    homes = {domain.objects[name].docname for name in found}
    if not found or len(homes) > 1:
        return None
    name = min(found, key=len)
    entry = domain.objects[name]
    return _reference(app, node, entry.docname, entry.node_id, name, content)


def _reference(
    app: Sphinx, node: pending_xref, page: str, anchor: str, title: str, content: nodes.TextElement
) -> nodes.reference:
    link = nodes.reference("", "", internal=True, reftitle=title)
    link["refuri"] = app.builder.get_relative_uri(node["refdoc"], page) + f"#{anchor}"
    link += content
    return link


def _skip(
    app: Sphinx, what: str, name: str, value: object, skip: bool, options: Any
) -> bool | None:
    """Leaves out what named tuples say of their fields: the docstring says more."""
    return True if type(value).__name__ == "_tuplegetter" else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Writes the pages before a build reads them, and links short names."""
    app.connect("builder-inited", _write)
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
