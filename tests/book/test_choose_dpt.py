"""Settings of chapter 6 are tried on validation images, and what was tried is not tried again."""

import csv
import sys
from pathlib import Path

from in_process import ROOT, small_clip

import vpkit

sys.path.insert(0, str(ROOT / "tools"))
import choose_dpt


def tried(path: Path) -> dict[str, float]:
    with path.open(encoding="utf-8", newline="") as file:
        return {row["method"]: float(row["val_accuracy"]) for row in csv.DictReader(file)}


def test_each_method_is_tried_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vpkit, "load_clip", small_clip)
    some = {method: settings[:1] for method, settings in choose_dpt.SETTINGS.items()}
    monkeypatch.setattr(choose_dpt, "SETTINGS", some)
    out = tmp_path / "tried.csv"
    asked = ["--datasets", "digits", "--epochs", "1", "--out", str(out), "--methods"]
    choose_dpt.main([*asked, "DPT", "KgCoOp"])
    first = tried(out)
    assert list(first) == ["DPT", "KgCoOp"]
    assert all(0 <= accuracy <= 1 for accuracy in first.values())
    capsys.readouterr()
    choose_dpt.main([*asked, *some])
    assert "KgCoOp" not in capsys.readouterr().out
    assert tried(out) == first | {method: tried(out)[method] for method in ("CoOp", "VPT", "VLP", "PromptSRC")}
