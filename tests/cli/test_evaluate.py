import json
import shutil

import pytest

FAST = ("--samples", 10, "--stride", 400)


def test_table_states_its_protocol(run, folder, tiny_model):
    code, out, err = run("evaluate", tiny_model, *FAST, "--hide", 4, "--intrinsics", "unknown")
    assert code == 0 and not err
    assert out.startswith("Model: tiny.safetensors")
    words = " ".join(out.split())
    for phrase in (
        "CMU17, split test_seen: exact 2D, 4 views, one frame in 400, 4 joints hidden per pose",
        "intrinsics unknown",
        "10 samples of the distribution itself",
        "Means over 40 poses",
        "deterministic estimate",
        "spread, hidden joints",
    ):
        assert phrase in words


def test_json_to_file_and_standard_output_agree(run, folder, tiny_model):
    args = ("evaluate", tiny_model, *FAST, "--split", "val", "--kind", "noisy",
            "--use", "hypotheses", "--intrinsics", "unknown", "--no-recalibrated")  # fmt: skip
    code, table, _ = run(*args, "--json", "report.json")
    assert code == 0 and "Protocol" in table
    code, out, err = run(*args, "--json", "-")
    assert code == 0 and not err
    stored = json.loads(out)
    assert stored == json.loads((folder / "report.json").read_text())
    assert list(stored["models"]) == ["tiny.safetensors"] and stored["propose_prob_version"]
    report = stored["models"]["tiny.safetensors"]
    protocol = report["protocol"]
    assert (protocol["split"], protocol["keypoints"]) == ("val", "noisy")
    assert (protocol["samples"], protocol["intrinsics"]) == ("hypotheses", "unknown")
    assert protocol["calibrated"] is False
    assert f"{report['items']['point_mpjpe']:.1f}" in table


def test_several_models_in_one_table(run, folder, tiny_model):
    other = folder / "other.safetensors"
    shutil.copy(tiny_model, other)
    code, out, err = run("evaluate", tiny_model, other, *FAST, "--markdown", "table.md")
    assert code == 0 and not err
    titles = next(line for line in out.splitlines() if line.startswith("model "))
    assert titles.split() == ["model", "tiny.safetensors", "other.safetensors"]
    rows = [line for line in (folder / "table.md").read_text().splitlines() if line[:1] == "|"]
    assert len(rows) == 4 and rows[2].split("|")[2:] == rows[3].split("|")[2:]
    code, out, err = run("evaluate", tiny_model, tiny_model)
    assert code == 2 and "different names" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--samples", 1), "--samples"),
        (("--stride", 0), "--stride"),
        (("--hide", 16), "--hide"),
        (("--hide", -1), "--hide"),
        (("--batch-size", 0), "--batch-size"),
        (("--split", "test"), "test_seen"),
        (("--kind", "detected"), "exact or noisy"),
        (("--split", "train", "--kind", "noisy"), "train"),
        (("--json", "none/report.json"), "no folder"),
        (("--protocol", "h36m-p1"), "--data DIR"),
        (("--protocol", "3dhp", "--data", "nowhere"), "nowhere"),
        (("--protocol", "3dhp", "--kind", "noisy", "--data", "."), "--kind gt"),
        (("--protocol", "3dpw", "--data", "nowhere"), "nowhere"),
        (("--protocol", "h36m-p2", "--data", "nowhere"), "nowhere"),
        (("--smpl-male", "m.npz"), "together"),
    ],
)
def test_wrong_options_get_one_line(run, folder, tiny_model, args, words):
    code, out, err = run("evaluate", tiny_model, *args)
    assert code == 2 and not out
    assert words in err and err.count("\n") == 1
    assert not list(folder.iterdir())
