import importlib
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "_ext"))
licences = importlib.import_module("licences")


def test_every_dependency_is_on_the_page_of_licences():
    rows = (DOCS / "licences.md").read_text().partition(licences.MARK)[2].splitlines()
    listed = {row.split("|")[1].strip() for row in rows if row.startswith("| ")} - {"package"}
    assert set(licences.needed()) <= listed
    assert {"torch", "pyro-ppl", "zuko"} <= set(licences.needed())
