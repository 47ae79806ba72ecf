"""The page of `propose-prob report`: what is in it, that it needs nothing else, that it opens."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from propose_prob.datasets.cmu17 import FOCAL, load_cmu17
from tests.datasets import test_mpi_inf_3dhp as mpi

FAST = ("--samples", 10, "--stride", 500)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Page(HTMLParser):
    """Tags, texts and attributes of a page; raises where tags do not match."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def own_file(folder):
    """A user's own pairs: a few poses of CMU17, in pixels."""
    data = load_cmu17("val")
    part = slice(0, 2000, 100)
    np.savez(
        folder / "mine.npz",
        p2d=500 * (data.p2d()[part, 0].numpy() + 1),
        p3d=data.camera_joints()[part, 0].numpy(),
        focal=500 * FOCAL,
        center=[500.0, 500.0],
        action=["walk", "<jump>"] * 10,
    )
    return folder / "mine.npz"


def report(run, *args):
    code, out, err = run("report", *args, "--out", "page.html")
    assert code == 0 and not err, err
    assert out == "wrote page.html\n"
    text = Path("page.html").read_text("utf-8")
    return text, Page(text)


def test_everything_is_on_one_page(run, folder, tiny_model):
    _text, page = report(
        run, tiny_model, "--data", "cmu17:val", "--hide", 2, "--kind", "noisy", *FAST
    )
    for phrase in (
        "tiny.safetensors on CMU17, val",
        "2 joints hidden per pose",
        "noisy 2D",
        "propose-prob report tiny.safetensors --data cmu17:val --kind noisy --hide 2 --stride 500",
        "frame stride 500",
        "MPJPE, mean over poses",
        "PA-MPJPE, mean over actions",
        "energy score, per joint (mm)",
        "central interval across down depth",
        "quantile of the distribution",
        "place of the truth in the distribution of its coordinate",
        "hypotheses that compete, m",
        "spread of the distribution (mm)",
        "joints taken away (%)",
        "calibration error, hidden joints",
        "RWrist",
        "By action",
        "Worst cases",
        "best sample",
        "away from the camera (m)",
    ):
        assert phrase in page.words, phrase
    # Five diagrams, and three drawings of each of the worst four.
    assert page.tags.count("svg") == 5 + 3 * 4
    assert "Pelvis" not in page.words.split("Joints")[1].split("By action")[0]


def test_the_page_asks_nobody_for_anything(run, folder, tiny_model):
    text, page = report(run, tiny_model, *FAST, "--data", "cmu17:test_subject03")
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    for tag, name, value in page.attributes:
        if name in ("href", "src", "xlink:href"):
            assert value.startswith(("#", "data:")), (tag, name, value)
    for address in re.findall(r"https?://[^\s\"'<)]+", text):
        assert address.startswith("http://www.w3.org/"), address
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    # Names inside drawings are unique, or one drawing would use another's shapes.
    names = [value for _, name, value in page.attributes if name == "id"]
    used = {v[1:] for _, name, v in page.attributes if name == "xlink:href"}
    assert used <= set(names)
    clips = [name for name in names if "-p" in name]
    assert len(clips) == len(set(clips))
    assert "prefers-color-scheme: dark" in text and "#22272e" not in text.split("</style>")[1]


def test_a_file_of_ones_own(run, folder, tiny_model, own_file):
    text, page = report(run, tiny_model, "--data", own_file, "--samples", 10, "--worst", 1)
    assert "tiny.safetensors on mine.npz, all" in page.words
    assert "camera intrinsics known" in page.words and "20 poses, 10 samples each" in page.words
    assert "&lt;jump&gt;" in text and "<jump>" not in text
    assert page.tags.count("svg") == 5 + 3
    text, page = report(
        run, tiny_model, "--data", own_file, "--samples", 10, "--worst", 0, "--stride", 2,
        "--intrinsics", "unknown",
    )  # fmt: skip
    assert "camera intrinsics unknown" in page.words and "10 poses" in page.words
    assert "Worst cases" not in page.words


def test_a_data_set_of_the_literature(run, folder, tiny_model):
    mpi.write_test_set(folder / "3dhp")
    _, page = report(run, tiny_model, "--data", "3dhp:3dhp", "--samples", 10, "--worst", 1)
    assert "tiny.safetensors on MPI-INF-3DHP, test" in page.words
    assert "By setting" in page.words and "outdoor" in page.words


@pytest.mark.parametrize("model", ["propose-cmu17", "prohmr-lifting-cmu17", "prohmr-cmu17"])
def test_every_shipped_kind_of_model(run, folder, own_file, model):
    _, page = report(run, model, "--data", own_file, "--samples", 10, "--worst", 1, "--stride", 4)
    assert f"{model} on mine.npz, all" in page.words


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--data", "cmu17:nowhere"), "--split of"),
        (("--data", "elsewhere:x"), "cmu17:..."),
        (("--data", "nothing.npz"), "nothing.npz"),
        (("--data", "h36m-p1"), "--data DIR"),
        (("--data", "3dhp:nowhere"), "nowhere"),
        (("--data", "mine.npz", "--kind", "noisy"), "--kind"),
        (("--worst", -1), "--worst"),
        (("--samples", 1), "--samples"),
        (("--out", "no/folder.html"), "no folder"),
    ],
)
def test_wrong_options_get_one_line(run, folder, tiny_model, args, words):
    code, out, err = run("report", tiny_model, *args)
    assert code == 2 and not out
    assert words in err and err.count("\n") == 1, err
    assert not list(folder.iterdir())


def test_without_matplotlib_the_extra_is_named(run, folder, tiny_model, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    code, _, err = run("report", tiny_model, *FAST)
    assert code == 2 and "propose_prob[plot]" in err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_chromium_draws_it_light_and_dark(run, folder, tiny_model, own_file):
    report(run, tiny_model, "--data", own_file, "--samples", 10, "--worst", 1)
    for scheme in ("light", "dark"):
        picture = screenshot(folder, dark=scheme == "dark")
        paper = picture[-1, 0]
        assert (paper.mean() < 40) == (scheme == "dark")
        # Text and drawings all the way down.
        inked = (np.abs(picture - paper).max(-1) > 60).any(1)
        assert all(part.mean() > 0.1 for part in np.array_split(inked[:3500], 7))
        # The diagrams' colors are there, and ink that can be read on this paper.
        flat = picture.reshape(-1, 3)
        assert (np.abs(flat - [0, 114, 178]).max(-1) < 12).sum() > 300
        assert np.abs(flat - paper).max() > 180


def screenshot(folder, *, dark):
    """The page as Chromium draws it, `(H, W, 3)`."""
    from PIL import Image

    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync --hide-scrollbars"
    flags += " --disable-background-networking --disable-component-update --disable-quic"
    flags += " --blink-settings=preferredColorScheme=0" if dark else ""
    subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={folder / 'profile'}",
         "--window-size=1100,4200", f"--screenshot={folder / 'page.png'}",
         (folder / "page.html").as_uri()],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    with Image.open(folder / "page.png") as image:
        return np.asarray(image.convert("RGB")).astype(float)


@pytest.mark.parametrize("name", ["p2d", "p3d", "focal", "center"])
@pytest.mark.parametrize("scale", [1e20, 1e30])
def test_numbers_of_another_world_end_in_a_page_or_a_line(run, own_file, tiny_model, name, scale):
    with np.load(own_file) as stored:
        arrays = dict(stored)
    arrays[name] = np.asarray(arrays[name]) * scale
    np.savez(own_file, **arrays)
    code, _out, err = run("report", tiny_model, "--data", own_file, "--out", "a.html", *FAST)
    # A camera so far away that it sees in parallel is none that cannot be.
    assert code == (0 if (name, scale) == ("focal", 1e20) else 2)
    assert err.count("\n") == (code == 2) and Path("a.html").exists() == (code == 0)
