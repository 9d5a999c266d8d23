import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

import vpkit
from vpkit.book import load_runs, save_run
from vpkit.mappings import LabelMapping
from vpkit.prompts import ExpandPrompt, PadPrompt, load_prompt, save_prompt
from vpkit.training import History

ROOT = Path(__file__).resolve().parents[2]


def save(folder, name="a", **changes):
    values = {"method": "FLM", "parameters": {"seed": 1, "lr": 0.05}, "metrics": {"test_accuracy": 0.5, "n_test": 20}}
    return save_run(folder / f"{name}.json", **(values | changes))


def test_a_metric_that_is_no_number_is_named(tmp_path):
    with pytest.raises(ValueError, match="metrics are not numbers: mapping is 'FLM'; expected int or float"):
        vpkit.book.save_run(tmp_path / "a.json", method="FLM", parameters={}, metrics={"mapping": "FLM", "n_test": 3})
    path = vpkit.book.save_run(
        tmp_path / "a.json", method="FLM", parameters={}, metrics={"n": np.int64(3), "a": np.float32(0.5)}
    )
    assert json.loads(path.read_text())["metrics"] == {"n": 3, "a": 0.5}


def test_a_run_is_read_back_as_a_row(tmp_path):
    history = History([{"epoch": 1, "val_accuracy": 0.25}], seconds=1.234)
    save(tmp_path, "a", history=history)
    save(tmp_path / "deeper", "b", method="RLM")
    table = load_runs(tmp_path)
    assert table["method"].tolist() == ["FLM", "RLM"]
    assert table.loc[0, ["seed", "lr", "test_accuracy", "n_test", "seconds"]].tolist() == [1, 0.05, 0.5, 20, 1.23]
    assert table.loc[0, "history"] == history.rows


def test_a_run_carries_what_is_needed_to_repeat_it(tmp_path):
    record = json.loads(save(tmp_path).read_text())
    assert record["versions"]["torch"] == torch.__version__.split("+")[0]
    assert record["versions"]["vpkit"] == vpkit.__version__
    assert record["hardware"]["threads"] >= 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_no_result(tmp_path, value):
    with pytest.raises(ValueError, match="metrics are not finite: test_accuracy"):
        save(tmp_path, metrics={"test_accuracy": value})
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        save(tmp_path, parameters={"device": object()})
    with pytest.raises(ValueError, match=r"expected a file name ending in \.json"):
        save_run(tmp_path / "run.txt", method="", parameters={}, metrics={})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99, "method": "x"}'])
def test_a_file_that_is_no_run_is_named(tmp_path, content):
    (tmp_path / "odd.json").write_text(content)
    with pytest.raises(ValueError, match=r"odd\.json: not a run"):
        load_runs(tmp_path)


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="run a notebook with -p results_dir"):
        load_runs(tmp_path)


def test_an_unknown_study_lists_the_known_ones():
    with pytest.raises(FileNotFoundError, match=r"unknown study 'x': expected one of 01_visual_prompting, 02_label"):
        vpkit.load_study("x")


@pytest.mark.parametrize("make", [lambda: PadPrompt(12, 3), lambda: ExpandPrompt(8, 12, "zero")])
def test_a_prompt_is_read_back_exactly(tmp_path, make):
    prompt, mapping = make(), LabelMapping([5, 2])
    torch.nn.init.normal_(prompt.pixels)
    save_prompt(tmp_path / "p.safetensors", prompt, mapping, model="tiny", accuracy=0.5)
    other, other_mapping = make(), LabelMapping([0, 1])
    card = load_prompt(tmp_path / "p.safetensors", other, other_mapping)
    assert card == {"model": "tiny", "accuracy": 0.5}
    assert torch.equal(other.picture(), prompt.picture())
    assert other_mapping.index.tolist() == [5, 2]


def test_a_prompt_that_does_not_fit_is_refused(tmp_path):
    path = save_prompt(tmp_path / "p.safetensors", PadPrompt(12, 3), LabelMapping([5, 2]))
    with pytest.raises(ValueError, match=r"holds PadPrompt\(image_size=12, width=3\), not PadPrompt"):
        load_prompt(path, PadPrompt(12, 4))
    with pytest.raises(ValueError, match="its mapping does not fit"):
        load_prompt(path, PadPrompt(12, 3), LabelMapping([1, 2, 3]))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="not a prompt file of vpkit, or cut short"):
        load_prompt(path, PadPrompt(12, 3))
    with pytest.raises(FileNotFoundError, match="no such prompt file"):
        load_prompt(tmp_path / "none", PadPrompt(12, 3))


def _save_often(folder):
    for i in range(30):
        save(folder, "same", parameters={"seed": i, "padding": "x" * 20_000})


def test_a_reader_never_sees_half_a_file(tmp_path):
    save(tmp_path, "same")
    writer = multiprocessing.get_context("fork").Process(target=_save_often, args=(tmp_path,))
    writer.start()
    while writer.is_alive():
        assert len(load_runs(tmp_path)) == 1
    writer.join()
    assert writer.exitcode == 0


def test_the_papers_numbers_ship_with_the_package():
    table = vpkit.load_paper_results("ilm_vp", "Table 1")
    cifar = table[(table.dataset == "CIFAR10") & table.backbone.str.startswith("ResNet-18")].set_index("method").value
    assert (cifar["RLM-VP"], cifar["FLM-VP"]) == (63.0, 65.7)
    averages = vpkit.load_paper_results("vp", "Table 4")
    rows = averages[averages.backbone.str.startswith("ResNet-50 (I") & (averages.method == "VP")]
    printed = rows[rows.dataset == "Average"].value.item()
    assert rows[rows.dataset != "Average"].value.mean() == pytest.approx(printed, abs=0.06)
    with pytest.raises(ValueError, match="unknown paper 'ilm': expected one of vp, ilm_vp"):
        vpkit.load_paper_results("ilm")
    with pytest.raises(ValueError, match="unknown table 'Table 9': expected one of Table"):
        vpkit.load_paper_results("vp", "Table 9")


def test_what_the_chapters_claim_holds_in_the_stored_studies():
    """The figures' data, not a constant: rerunning a study with other code must keep these true."""
    icons = "dataset == 'icons' and n_train == 990"
    two = vpkit.load_study("02_label_mapping").query(icons).groupby("method")["test_accuracy"].mean()
    three = vpkit.load_study("03_ilm_vp").query(f"{icons} and n_classes.isna()")
    three = three.groupby("method")["test_accuracy"].agg(["mean", "min", "count"])
    assert two["FLM"] > two["RLM"]
    assert three["mean"]["ILM"] >= two["FLM"] + 0.05
    assert three["mean"]["ILM soft + Hungarian"] > three["mean"]["ILM"]
    assert three["min"]["BLM+"] > three["mean"]["BLM"] > three["mean"]["ILM"]
    assert (three["count"] == 3).all()


def test_the_prompt_of_a_study_is_the_one_it_learned():
    name, prompt = "01_visual_prompting", PadPrompt(96, 24, scale=0.25)
    found = vpkit.prompts.study_prompts(name, prompt)
    assert list(found) == ["mnist5k"]
    assert found["mnist5k"].picture().std() > 0.05
    with pytest.raises(FileNotFoundError, match="stored no prompts"):
        vpkit.prompts.study_prompts("02_label_mapping", prompt)
    with pytest.raises(ValueError, match="not PadPrompt"):
        vpkit.prompts.study_prompts(name, PadPrompt(96, 13))


def test_what_chapter_4_claims_holds_in_its_study():
    study = vpkit.load_study("04_clip_template_mapping").query("prompt_size == 12 and prompt_start == 'zero'")
    mean = study.pivot_table(index="dataset", columns="method", values="test_accuracy")
    for fails in ("mnist5k", "pictograms:inverted"):
        assert mean["VP+TP"][fails] >= mean["zero-shot"][fails] + 0.20
    for prompt in ("VP+TP", "VP+TP+LM"):
        assert mean[prompt]["pictograms"] < mean["zero-shot"]["pictograms"]
        assert (mean[prompt] < mean["linear probe"]).all()
    assert (study.groupby(["dataset", "method"])["seed"].nunique() == 3).all()


def test_what_chapter_5_claims_holds_in_its_study():
    study = vpkit.load_study("05_logoprompt")
    assert (study.groupby("method")["seed"].nunique() == 3).all()
    mean = study.groupby("method")[["test_accuracy", "called_as_written", "base", "new"]].mean()
    right, believed, new = mean["test_accuracy"], mean["called_as_written"], mean["new"].dropna()
    assert right["LoGoPrompt"] > right["CoOp"] + 0.1 > right["zero-shot"] + 0.1
    assert right["LoGoPrompt, name not pasted"] > right["LoGoPrompt"]
    assert right["zero-shot"] > right["zero-shot, names pasted"] + 0.05
    assert believed["LoGoPrompt"] < 0.05 < believed["CoOp, class-specific"] < believed["zero-shot"]
    assert new.idxmax() == "zero-shot"
    assert mean["base"]["LoGoPrompt, first stage"] > mean["base"]["CoOp"]


def test_what_chapter_6_claims_holds_in_its_study():
    study = vpkit.load_study("06_dpt")
    inverted = study.query("dataset == 'pictograms:inverted'").pivot_table(
        index="seed", columns="method", values="test_accuracy"
    )
    assert len(inverted) == 3
    assert inverted["VPT"].min() > inverted["CoOp"].max()  # no words can repair the features of images
    plain = study.query("dataset == 'pictograms' and lr == 0.3").set_index(["method", "seed"])
    looked = plain[["target_smaller", "distractor_smaller"]].dropna()
    change = looked.loc["DPT"] - looked.loc["zero-shot"]
    assert change["distractor_smaller"].min() > 0.03 > 0.01 > change["target_smaller"].abs().max()
    assert (plain.loc["DPT", "own"] - plain.loc["DPT", "others"]).abs().max() < 0.002  # whichever class is asked for
    new = study.dropna(subset=["new"])
    assert set(new["method"]) == {"zero-shot", "CoOp", "KgCoOp", "VPT", "VLP", "DPT", "PromptSRC"}
    assert (new.groupby("method")["seed"].nunique() == 3).all()


def test_what_the_recipes_say_of_augmentation_holds_in_its_study():
    study = vpkit.load_study("augmentation").query(
        "method not in ['zero-shot', 'zero-shot, names pasted', 'Tip-Adapter']"
    )
    mean = study.pivot_table(index=["model", "method"], columns="augment", values="test_accuracy")
    assert len(mean) == 9
    assert (mean[True] < mean[False]).all()
    assert (study.groupby(["model", "method", "augment"])["seed"].nunique() == 3).all()
    text = (ROOT / "book" / "recipes.md").read_text(encoding="utf-8")
    for model, method in (("tiny", "CoOp, class-specific"), ("tiny", "LoGoPrompt"), ("tiny-vit", "VPT")):
        for found in mean.loc[(model, method)]:
            assert f"{100 * found:.1f} %" in text
