"""The tools behind tables of trials, on a small network with random weights: they run, count right and go on."""

import csv
import sys
from pathlib import Path

import pytest
import torch

import vpkit
from vpkit.prompts import PadPrompt

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import choose_remapping
import transfer_prompts


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def remapping(model, monkeypatch, tmp_path):
    def run(*options):
        monkeypatch.setattr(sys, "argv", ["choose_remapping.py", "--datasets", "digits", "--seeds", "0", *options])
        choose_remapping.main()
        return rows_of(tmp_path / "tried.csv")

    monkeypatch.setattr(choose_remapping, "TRIED", tmp_path / "tried.csv")
    monkeypatch.setattr(choose_remapping, "DATASETS", {"digits": (8, 30)})
    monkeypatch.setattr(choose_remapping, "CANVAS", 16)
    monkeypatch.setattr(vpkit, "load_frozen", lambda *_names: model)
    return run


def test_remapping_is_tried_once_for_each_way_and_only_what_maps_again_changes(remapping):
    tried = remapping("--epochs", "4", "--ways", "RLM", "FLM", "ILM", "ILM, first three epochs")
    assert [row["method"] for row in tried] == ["RLM", "FLM", "ILM", "ILM, first three epochs"]
    assert [row["changes"] for row in tried[:2]] == ["0", "0"]
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in tried)
    more = remapping("--epochs", "4", "--ways", "FLM", "BLM+")
    assert more[:4] == tried
    assert [row["method"] for row in more[4:]] == ["BLM+"]


def test_a_mapping_to_some_source_classes_uses_no_other():
    counts = torch.randint(1, 9, (12, 4), generator=torch.Generator().manual_seed(1))
    drawn = torch.randperm(12, generator=torch.Generator().manual_seed(3))[:5]
    mapping = choose_remapping.among(5, seed=3)(counts)
    assert set(mapping.index.tolist()) <= set(drawn.tolist())


def test_frames_are_carried_over_to_every_network(model, monkeypatch, tmp_path):
    (tmp_path / "book").mkdir()
    for name, value in (("ROOT", tmp_path), ("SIDE", 16), ("WIDTH", 4), ("EPOCHS", 1), ("lite", lambda _n: model)):
        monkeypatch.setattr(transfer_prompts, name, value)
    load = vpkit.load_dataset
    monkeypatch.setattr(vpkit, "load_dataset", lambda _name, split, *, size, subset, seed: load(
        "digits", split, size=size, subset=min(subset, 30), seed=seed
    ))  # fmt: skip
    transfer_prompts.main()
    rows = rows_of(tmp_path / "book" / "transfer.csv")
    assert len(rows) == 2 * (3 * (3 + 2 * 3 * 2) + 1)  # two mappings; without a frame, with two of two kinds; the mean
    same = [row["test_accuracy"] for row in rows if row["prompt"] == "none" and row["seed"] == "0"]
    assert same[:2] == same[2:4] == same[4:]  # it is one network three times
    assert [row["prompt"] for row in rows[-2:]] == ["mean of three"] * 2


def test_a_frame_with_other_pixels_keeps_its_shape_and_takes_no_gradient():
    frame = PadPrompt(16, 4)
    torch.nn.init.normal_(frame.pixels)
    other = transfer_prompts.with_pixels(frame, frame.pixels.flip(1))
    assert torch.equal(other.pixels, frame.pixels.flip(1))
    assert not other.pixels.requires_grad
