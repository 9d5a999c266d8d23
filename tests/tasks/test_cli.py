"""The command `vpkit`, in this process and in processes of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vpkit
from vpkit.tasks import task as tasks
from vpkit.tasks.cli import app
from vpkit.tasks.files import load_task, save_task

TINY = ["--canvas", "32", "--epochs", "1"]


def write_photos(root, per_class=24, first=0):
    """Three classes that differ in colour."""
    for k, name in enumerate(("blue_sky", "green_grass", "red_wall")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + per_class):
            pixels = np.random.default_rng([k, i]).integers(0, 90, (40, 40, 3))
            pixels[..., 2 - k] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def photos(tmp_path):
    return write_photos(tmp_path / "photos")


def call(*words, code=0):
    ran = CliRunner().invoke(app, [str(word) for word in words])
    assert ran.exit_code == code, ran.output + str(ran.exception)
    return ran


@pytest.fixture
def fitted(photos, tmp_path):
    path = tmp_path / "p.safetensors"
    call("fit", photos, "--out", path, "--quick", *TINY)
    return path


def test_the_simplest_that_is_not_worse_is_recommended_and_works_like_any_other(photos, tmp_path):
    path, page = tmp_path / "p.safetensors", tmp_path / "r.html"
    said = call("fit", photos, "--out", path, "--json", *TINY).stdout
    found = json.loads(said)
    assert [row["method"] for row in found["tried"]] == [
        "unprompted", "GDA", "linear probe", "ILM soft + Hungarian, border",
    ]  # fmt: skip
    best = max(row["val_accuracy"] for row in found["tried"])
    error = (best * (1 - best) / found["n_val"]) ** 0.5
    good = [row["method"] for row in found["tried"] if row["val_accuracy"] >= best - error]
    assert found["recommended"] == good[0]
    assert all(row["low"] <= row["val_accuracy"] <= row["high"] and row["seconds"] > 0 for row in found["tried"])
    call("report", path, "--out", page)
    text = page.read_text(encoding="utf-8")
    assert "What was tried" in text
    assert all(row["method"] in text for row in found["tried"])
    assert "test images are right (95 % interval" in text
    assert not list(tmp_path.glob(".*.safetensors"))  # checkpoints of what is done


@pytest.mark.parametrize("method", ["unprompted", "GDA", "linear probe", "prompt"])
def test_every_method_is_saved_and_asked_alike(method, photos, tmp_path):
    path = tmp_path / "p.safetensors"
    call("fit", photos, "--out", path, "--method", method, *TINY)
    task, card = load_task(path)
    assert task.settings["method"] == method
    splits = [vpkit.load_dataset(f"folder:{photos}", split, size=160) for split in ("val", "train")]
    found = tasks.evaluate_task(task, splits[0])
    assert found.accuracy == pytest.approx(card["val_accuracy"])
    rows = json.loads(call("predict", path, photos / "red_wall", "--json").stdout)
    assert len(rows) == 24
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-4)
        assert row["probability"] == pytest.approx(max(row["probabilities"].values()))
        assert row["predicted"] == max(row["probabilities"], key=row["probabilities"].get)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["zero-shot", "GDA", "linear probe", "CoOp", "prompt", "LoGoPrompt", "DPT"])
def test_on_a_clip(method, photos, tmp_path):
    path, model = tmp_path / "p.safetensors", "tiny-vit" if method == "DPT" else "tiny"
    call("fit", photos, "--out", path, "--model", model, "--method", method, "--epochs", "1", "--prompt", "frame")
    task, card = load_task(path)
    val = vpkit.load_dataset(f"folder:{photos}", "val", size=160)
    assert tasks.evaluate_task(task, val).accuracy == pytest.approx(card["val_accuracy"])
    one, many = (tasks.predict_images(task, val.files, batch_size=size) for size in (1, 64))
    assert np.allclose(one.probability, many.probability, atol=1e-4)
    call("report", path, "--out", tmp_path / "r.html")


def test_methods_that_read_text_need_a_clip(photos, tmp_path):
    for method in ("zero-shot", "CoOp", "DPT"):
        said = call("fit", photos, "--out", tmp_path / "p.safetensors", "--method", method, code=1).output
        assert f"efficientnet_lite0 reads no text: {method} needs one of tiny, tiny-vit" in said
    said = call("fit", photos, "--out", tmp_path / "p.safetensors", "--model", "tiny", "--method", "DPT", code=1).output
    assert "DPT's tokens need a transformer, such as tiny-vit" in said
    said = call("fit", photos, "--model", "tiny", "--canvas", "64", code=1).output
    assert "canvas_size=64: tiny takes images of 96 px only" in said


def test_a_report_never_tests_on_what_was_trained_on(photos, fitted, tmp_path):
    trained = load_task(fitted)[0].trained_on
    assert len(trained) > 40
    write_photos(photos, 50, first=100)
    (photos / "red_wall" / "3.png").unlink()
    shutil.copy(photos / "red_wall" / "4.png", photos / "red_wall" / "moved.png")
    ran = call("report", fitted, "--out", tmp_path / "r.html")
    assert "150 images of the folder are new, 1 are gone and 0 have changed" in ran.stderr
    assert "150 images of the folder are new" in (tmp_path / "r.html").read_text()
    task, _ = load_task(fitted)
    # a split made by hand, with training images in test
    other = tmp_path / "other"
    shutil.copytree(photos, other / "train")
    shutil.copytree(photos, other / "test")
    call("report", fitted, "--folder", other, "--out", tmp_path / "r.html")
    kept = len(tasks.digests_of(vpkit.load_dataset(f"folder:{other}", "test", size=160)) - task.trained_on)
    text = (tmp_path / "r.html").read_text()
    assert int(re.search(r"of (\d+) test images are right", text)[1]) == kept
    assert "were left out: this classifier was trained or validated on them" in text


def test_a_report_without_untouched_images_is_refused(photos, fitted, tmp_path):
    task, card = load_task(fitted)
    task.trained_on = tasks.digests_of(vpkit.load_dataset(f"folder:{photos}", "all", size=160))
    save_task(fitted, task, **card)
    assert "are among those that were trained on" in call("report", fitted, "--out", tmp_path / "r.html", code=1).output
    task.trained_on = frozenset()
    save_task(fitted, task, **card)
    assert "run vpkit fit again" in call("report", fitted, "--out", tmp_path / "r.html", code=1).output


def test_predict_goes_on_after_a_bad_file(photos, fitted, tmp_path):
    bad = photos / "red_wall" / "bad.png"
    bad.write_bytes(b"no image")
    ran = call("predict", fitted, bad, photos / "red_wall" / "1.png", "--csv", tmp_path / "all.csv", code=1)
    assert "bad.png: not a readable image" in ran.stdout
    assert re.search(r"\d+\.\d%  .+1\.png", ran.stdout)
    assert "1 of 2 files could not be read" in ran.stderr
    table = pd.read_csv(tmp_path / "all.csv")
    assert list(table.columns) == ["image", "predicted", "probability", "error", "blue sky", "green grass", "red wall"]
    assert table["blue sky"].isna().tolist() == [True, False]
    assert len(json.loads(call("predict", fitted, photos / "green*" / "1?.png", "--json").stdout)) == 10
    (tmp_path / "empty").mkdir()
    assert "there are no images in" in call("predict", fitted, tmp_path / "empty", code=1).output


def test_ctrl_c_keeps_what_is_finished_and_the_rest_goes_on_later(photos, tmp_path, monkeypatch):
    path, original, called = tmp_path / "p.safetensors", tasks.fit_task, []

    def stops_at_the_third(*args, **options):
        called.append(options["method"])
        if len(called) == 3:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(tasks, "fit_task", stops_at_the_third)
    ran = call("fit", photos, "--out", path, *TINY)
    assert "interrupted: going on with unprompted, GDA" in ran.stderr
    assert load_task(path)[0].settings["method"] in ("unprompted", "GDA")
    called[:] = ["unprompted", "GDA"]
    assert "nothing is finished" in call("fit", photos, "--out", path, *TINY, code=130).stderr


def test_an_interrupted_training_goes_on(photos, tmp_path, monkeypatch):
    """The prompt is stopped after its first epoch; the same command then runs the second only."""
    path, epochs = tmp_path / "p.safetensors", []
    original = vpkit.training.loop.train_epoch

    def stops_at_the_second(*args, **options):
        epochs.append(args[-1])
        if epochs == [1, 2]:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(vpkit.training.loop, "train_epoch", stops_at_the_second)
    words = ("fit", photos, "--out", path, "--method", "prompt", "--canvas", "32", "--epochs", "2")
    call(*words, code=130)
    assert not path.exists()
    call(*words)
    assert epochs == [1, 2, 2]
    assert len(load_task(path)[1]["tried"]) == 1


def test_where_it_is_written_is_checked_before_anything_is_fitted(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "fit_task", lambda *_, **__: pytest.fail("it was fitted"))
    (tmp_path / "file").write_text("")
    for out, message in (
        ("prompt.bin", "ending in .safetensors"),
        (tmp_path / "file" / "p.safetensors", "written there"),
    ):
        assert message in call("fit", photos, "--out", out, code=1).output
    assert "unknown method 'best'" in call("fit", photos, "--method", "best", code=1).output
    assert "device='gpu': expected 'cpu'" in call("fit", photos, "--device", "gpu", code=1).output


def test_a_classifier_can_be_chosen_by_the_user(photos, tmp_path):
    path = tmp_path / "p.safetensors"
    words = ["--method", "prompt", "--mapping", "BLM+", "--prompt", "frame", "--lr", "0.1", "--device", "cpu"]
    call("fit", photos, "--out", path, *words, *TINY)
    settings = load_task(path)[0].settings
    assert (settings["mapping"], settings["prompt"], settings["canvas_size"]) == ("BLM+", "frame", 32)


@pytest.mark.slow
def test_from_the_shell_in_processes_of_their_own(tmp_path, photos):
    def run(*words):
        ran = subprocess.run(
            [sys.executable, "-m", "vpkit.tasks.cli", *map(str, words)], capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    prompt, page = tmp_path / "p.safetensors", tmp_path / "r.html"
    told = run("fit", photos, "--out", prompt, "--epochs", 1)
    assert f"next: vpkit report {prompt}" in told
    assert "the simplest within a standard error of the best" in told
    told = run("predict", prompt, photos / "red_wall" / "3.png", photos / "blue_sky" / "4.png")
    assert len(re.findall(r"^ *\d+\.\d%  .+3\.png$|^ *\d+\.\d%  .+4\.png$", told, flags=re.M)) == 2
    run("report", prompt, "--out", page)
    assert "test images are right" in page.read_text(encoding="utf-8")


def test_the_shell_tells_mistakes_in_one_line(tmp_path):
    for words in (["predict", tmp_path / "none.safetensors", "a.png"], ["fit", tmp_path / "nowhere"]):
        ran = call(*words, code=1)
        assert "no such" in ran.output
        assert "Traceback" not in ran.output
    helped = call("--help").output
    assert all(word in helped for word in ("fit", "predict", "report", "frozen"))
    assert call("--version").output == f"vpkit {vpkit.__version__}\n"


@pytest.mark.slow
def test_a_fitted_classifier_is_exported(fitted, tmp_path):
    pytest.importorskip("onnxscript")
    if torch.__version__ < torch.torch_version.TorchVersion("2.6"):
        assert "2.6 or newer is needed" in call("export", fitted, tmp_path / "model.onnx", code=1).output
        return
    assert "to probabilities (B, 3)" in call("export", fitted, tmp_path / "model.onnx").stdout
    assert (tmp_path / "model.onnx").stat().st_size > 1_000_000
    assert "ending in .onnx" in call("export", fitted, tmp_path / "model.pt", code=1).output


def test_the_cache_is_shown_and_pruned(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path / "cache"))
    sizes = (4, 8, 16)
    for age, size in zip((30, 20, 10), sizes, strict=True):
        vpkit.load_dataset(f"folder:{photos}", "train", size=size)
        (newest,) = (tmp_path / "cache" / "datasets").glob(f"*-{size}px-*.npy")
        os.utime(newest, (time.time() - age, time.time() - age))
    vpkit.load_dataset(f"folder:{photos}", "train", size=4)  # used again: now the newest
    assert "3 files" in call("cache").stdout
    assert "such as 500MB" in call("cache", "--limit", "much", code=1).output
    total = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    said = call("cache", "--limit", total - 1).stdout
    assert "removed" in said
    assert "-8px-" in said
    assert "2 files" in said
    monkeypatch.setenv("VPKIT_CACHE_LIMIT", "100kB")
    vpkit.load_dataset(f"folder:{photos}", "train", size=20)
    assert [path.name for path in (tmp_path / "cache").rglob("*.npy") if "-20px-" in path.name]
    left = sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*.npy"))
    assert left <= 100_000
    assert "0 files" in call("cache", "--limit", "0").stdout
