"""`propose-prob render`: render images of people with known bodies."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..devices import set_threads
from .options import at_least
from .output import tell

__all__ = ["Render"]


@dataclass(frozen=True)
class Render:
    """Render people in recorded poses, to train and test models of images.

    Attributes:
        out: Folder of the set; `OUT/SPLIT` receives it. A broken-off run goes on where it stopped.
        split: Whose poses: train, val, test_seen or test_subject03.
        count: Number of images.
        size: Side of the images, pixels.
        seed: Of everything random.
        mix: Share of the people whose arms are those of another frame.
        threads: CPU threads.
    """

    out: Path
    split: str = "train"
    count: int = 20_000
    size: int = 128
    seed: int = 0
    mix: float = 0.0
    threads: int = 1

    def run(self) -> None:
        """Renders.

        Raises:
            InputError: If an option is out of range, or the folder holds another set.
        """
        from tqdm import tqdm

        from ..images.render_set import render_set
        from ..images.renderer import RenderConfig

        set_threads(self.threads)
        at_least(self.seed, 0, "--seed")
        config = RenderConfig(split=self.split, seed=self.seed, size=self.size, mix=self.mix)
        with tqdm(total=self.count, unit="image", disable=not sys.stderr.isatty()) as bar:
            folder = render_set(config, self.count, self.out, progress=bar.update)
        tell(f"{self.count} images in {folder}")
