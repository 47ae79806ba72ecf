"""Writes `propose_prob/manifest.json`, the hashes of the weights and data that ship.

Run `python tools/manifest.py` after a file of them was added, changed or removed; a test says so.
"""

import json
from pathlib import Path

import propose_prob
from propose_prob._shipped import shipped_hashes


def main() -> None:
    """Write the manifest into the package that is imported."""
    path = Path(propose_prob.__file__).with_name("manifest.json")
    path.write_text(json.dumps(shipped_hashes(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
