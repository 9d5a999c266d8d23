import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

import vpkit
from vpkit.book.grids import read_grid
from vpkit.book.reproduction import (
    gains_beside_papers,
    grid_of,
    interval,
    papers_beside_ours,
    recomputed_means,
    side_by_side,
    study_table,
    summary,
    tables_of,
)

ROOT = Path(__file__).resolve().parents[2]


def write_runs(folder, grid, rows):
    """`rows`: (method, parameters, metrics); a run each."""
    for i, (method, parameters, metrics) in enumerate(rows):
        vpkit.book.save_run(folder / grid / f"{i}.json", method=method, parameters=parameters, metrics=metrics)


def ours(found, **cell):
    for column, value in cell.items():
        found = found[found[column] == value]
    assert len(found) == 1, found
    return found.iloc[0]


def test_without_runs_every_printed_accuracy_is_there_and_not_run():
    table = papers_beside_ours()
    assert len(table) > 900
    assert (table.seeds == 0).all()
    assert table.ours.isna().all()
    assert not set(table.paper) & {"ilm_vp_slides"}
    assert papers_beside_ours(ROOT / "no such folder").seeds.sum() == 0


def test_every_grid_named_is_in_the_repository_and_gives_the_methods_of_its_table():
    grids = set(papers_beside_ours().grid)
    assert None not in grids
    assert {path.stem for path in (ROOT / "grids").glob("*.yaml")} == grids | {
        "offline",
        "vp_fig6",
        "vp_fig9",
        "dpt_fig4",
        "dpt_fig5",
        "dpt_fig6",
    }


def test_the_mean_over_seeds_and_its_interval_stand_beside_the_printed_number(tmp_path):
    rows = [
        ("ILM", {"model": "resnet18", "dataset": "oxford_pets", "seed": seed}, {"test_accuracy": accuracy})
        for seed, accuracy in enumerate((0.60, 0.65, 0.70))
    ]
    rows.append(("ILM", {"model": "resnet50", "dataset": "oxford_pets", "seed": 0}, {"test_accuracy": 0.1}))
    rows.append(("FLM", {"model": "resnet18", "dataset": "oxford_pets", "seed": 0}, {"test_accuracy": 0.2}))
    write_runs(tmp_path, "ilm_vp_table1", rows)
    table = papers_beside_ours(tmp_path)
    cell = {"paper": "ilm_vp", "table": "Table 1", "dataset": "OxfordPets"}
    found = ours(table, **cell, method="ILM-VP", backbone="ResNet-18 (ImageNet-1K)")
    assert (found.value, found.seeds) == (65.4, 3)
    assert found.ours == pytest.approx(65)
    assert (found.low, found.high) == pytest.approx((65 - 12.42, 65 + 12.42), abs=0.01)  # t = 4.303, s = 5
    one = ours(table, **cell, method="FLM-VP", backbone="ResNet-18 (ImageNet-1K)")
    assert one.ours == pytest.approx(20)
    assert math.isnan(one.low)
    assert table.seeds.sum() == 3 + 1 + 1


def test_domains_base_to_new_and_ablations_find_their_columns(tmp_path):
    imagenet = {"dataset": "imagenet", "model": "ViT-B-16", "shots": 16, "seed": 0}
    write_runs(tmp_path, "logoprompt_table3", [("CoOp", imagenet, {"test_accuracy": 0.7, "sketch": 0.4, "v2": 0.6})])
    dtd = {"dataset": "dtd", "model": "ViT-B-16", "shots": 16, "seed": 0}
    write_runs(tmp_path, "logoprompt_table1", [("LoGoPrompt, first stage", dtd, {"base": 0.8, "new": 0.6, "H": 0.69})])
    top = {"dataset": "imagenet", "model": "RN50", "shots": 16, "seed": 0, "location": "top"}
    bottom = top | {"location": "bottom"}
    runs = [("LoGoPrompt", top, {"test_accuracy": 0.66}), ("LoGoPrompt", bottom, {"test_accuracy": 0.5})]
    write_runs(tmp_path, "logoprompt_table4", runs)
    found = papers_beside_ours(tmp_path)
    three = {"table": "Table 3", "method": "CoOp"}
    assert ours(found, **three, dataset="ImageNet-Sketch").ours == pytest.approx(40)
    assert ours(found, **three, dataset="ImageNet").ours == pytest.approx(70)
    assert ours(found, **three, dataset="ImageNet-A").seeds == 0
    assert ours(found, **three, dataset="Average").seeds == 0, "an average of some"
    one = {"table": "Table 1j", "method": "LoGoPrompt"}
    assert ours(found, **one, metric="new_accuracy").ours == pytest.approx(60)
    assert ours(found, **one, metric="harmonic_mean").ours == pytest.approx(69)
    assert ours(found, table="Table 4d", setting="ablation:visual_prompt_location=top").ours == pytest.approx(66)


def test_an_average_is_ours_when_all_its_data_sets_are(tmp_path):
    datasets = [row.dataset for row in pd.DataFrame(vpkit.load_paper_results("dpt", "Table I")).itertuples()]
    names = [name.lower() for name in dict.fromkeys(datasets) if name != "Average"]
    base = {"model": "ViT-B-32", "shots": 16, "seed": 0, "alpha": 0.3, "candidates": 10}
    runs = [("DPT", base | {"dataset": name}, {"test_accuracy": 0.5 + k / 100}) for k, name in enumerate(names)]
    write_runs(tmp_path, "dpt_table1", runs)
    write_runs(tmp_path, "dpt_table4", runs[:-1])
    write_runs(tmp_path, "dpt_table5", runs)
    found = papers_beside_ours(tmp_path)
    assert ours(found, table="Table I", method="DPT", dataset="Average").ours == pytest.approx(55)
    assert ours(found, table="Table IV", setting="ablation:alpha=0.3").seeds == 0
    assert ours(found, table="Table V", setting="ablation:cavpt_length=10").ours == pytest.approx(55)


def test_a_collected_file_counts_as_a_folder_of_runs(tmp_path):
    parameters = {"model": "resnet18", "dataset": "dtd", "seed": 0}
    write_runs(tmp_path / "a", "ilm_vp_table1", [("ILM", parameters, {"test_accuracy": 0.3})])
    records = [json.loads(path.read_text()) for path in (tmp_path / "a" / "ilm_vp_table1").glob("*.json")]
    (tmp_path / "ilm_vp_table1.json").write_text(json.dumps(records))
    pd.testing.assert_frame_equal(papers_beside_ours(tmp_path), papers_beside_ours(tmp_path / "a"))


def test_grids_are_named_after_tables():
    assert grid_of("logoprompt", "Table 1a") == grid_of("logoprompt", "Table 1l") == "logoprompt_table1"
    assert grid_of("dpt", "Table IV") == "dpt_table4"
    assert grid_of("ilm_vp", "Table A2") is None


def test_the_interval_of_a_mean():
    low, high = interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 2.484, 2 + 2.484), abs=1e-3)
    assert all(map(math.isnan, interval([1.0])))


def test_cells_of_the_tables_are_points_of_their_grids():
    points = {path.stem: read_grid(path) for path in (ROOT / "grids").glob("*.yaml")}
    table = papers_beside_ours()
    names = {grid: {p.parameters.get("dataset", "").replace("_", "") for p in found} for grid, found in points.items()}
    for grid, rows in table.groupby("grid"):
        for name in set(rows.dataset) - {"Average", "OOD Average"}:
            plain = name.lower().replace("-", "").replace("clevr", "clevrcount")
            domain = grid in ("logoprompt_table3", "dpt_table3") and name != "ImageNet"
            assert domain or plain in names[grid], (grid, name)


def test_the_summary_in_the_repository_is_that_of_the_code():
    stored = pd.read_csv(ROOT / "results" / "summary.csv")
    printed = papers_beside_ours().round(2)
    same = stored[stored.grid != "offline"].reset_index(drop=True)
    columns = ["paper", "table", "dataset", "method", "metric", "value", "grid", "seeds"]
    pd.testing.assert_frame_equal(same[columns], printed[columns], check_dtype=False)
    here = stored[stored.grid == "offline"]
    assert (here.seeds == 3).all()
    assert here.groupby("dataset").method.nunique().min() >= 15


@pytest.mark.parametrize("chapter", ["01_visual_prompting", "02_label_mapping", "03_ilm_vp", "05_logoprompt", "06_dpt"])
def test_the_table_of_a_study_has_each_of_its_runs_once(chapter):
    study = vpkit.load_study(chapter).dropna(subset=["test_accuracy"])
    table = study_table(chapter)
    assert set(table.method) == set(study.method)
    assert set(study.dataset) <= set(table.columns)
    said = [cell for cell in table[sorted(study.dataset.unique())].to_numpy().ravel() if cell]
    ranges = [tuple(map(float, re.findall(r"[\d.]+", cell))) for cell in said]
    assert all(low <= mean <= high for mean, low, high in ranges)
    assert max(high for *_, high in ranges) == pytest.approx(100 * study.test_accuracy.max(), abs=0.06)
    assert min(low for _, low, _ in ranges) == pytest.approx(100 * study.test_accuracy.min(), abs=0.06)


def test_a_printed_table_stands_beside_what_was_run():
    cells = papers_beside_ours()
    cells.loc[cells.grid == "vp_table1", ["ours", "low", "high", "seeds"]] = [50.0, 48.0, 52.0, 3]
    styled = side_by_side(cells, "vp_table1")
    rows = cells[cells.grid == "vp_table1"]
    assert styled.data.notna().all(axis=None)
    assert {cell.split(" | ")[1] for cell in styled.data.to_numpy().ravel() if cell} == {"50.0 ± 2.0"}
    assert styled.caption.startswith(f"vp_table1: {len(rows)} of {len(rows)} run here. python -m vpkit.book.sweep")
    unrun = side_by_side(cells, "ilm_vp_table1").data.to_numpy().ravel()
    assert {cell.split(" | ")[1] for cell in unrun if cell} == {"–"}


def test_gains_are_differences_within_a_run_beside_the_printed_mean():
    cells = papers_beside_ours()
    methods = [m for pair in ("FLM RLM", "ILM zero-shot", "VP+TP VP+TP+LM", "CoOp LoGoPrompt", "VPT VLP", "DPT x")
               for m in pair.split()]  # fmt: skip
    runs = pd.DataFrame(
        {"method": method, "test_accuracy": 0.01 * place + 0.1 * seed, "model": "m", "shots": 0, "dataset": "icons",
         "seed": seed}
        for place, method in enumerate(methods) for seed in range(3)
    )  # fmt: skip
    gains, printed = gains_beside_papers(runs, cells)
    assert gains[gains.pair == "FLM over RLM"].gain.tolist() == pytest.approx([-1] * 3)  # whatever the seed has
    assert gains[gains.pair == "DPT over VLP"].gain.tolist() == pytest.approx([1] * 3)
    table = vpkit.load_paper_results("vp", "Table 1")
    table = table[~table.dataset.str.contains("Average")].pivot(index="dataset", columns="method", values="value")
    theirs = printed.set_index("pair").gain["VP+TP over zero-shot"]
    assert theirs == pytest.approx((table["VP+TP"] - table["TP"]).mean())


def test_three_printed_harmonic_means_are_wrong():
    h = recomputed_means(papers_beside_ours())
    (row,) = h[(h.dataset == "Flowers102") & (h.method == "DPT")].itertuples()
    assert row.recomputed == pytest.approx(2 * 95.2 * 17.22 / (95.2 + 17.22))
    assert row.off == pytest.approx(row.harmonic_mean - row.recomputed)
    assert (h.off.abs() > 0.1).sum() == 3


def test_the_summary_has_the_printed_cells_and_ours_below_them():
    cells = papers_beside_ours()
    runs = pd.DataFrame(
        {"model": "m", "method": method, "dataset": "icons", "shots": 0, "test_accuracy": value}
        for method, value in (("ILM", 0.2), ("ILM", 0.4), ("FLM", 0.1))
    )
    ours = summary(cells, runs).iloc[len(cells) :].set_index("method")
    assert (ours.ours["ILM"], ours.seeds["ILM"]) == (pytest.approx(30), 2)
    assert math.isnan(ours.low["FLM"])  # one run has no interval
    assert set(ours.paper) == {"vpkit"}


def test_the_tables_of_a_paper_are_those_of_its_grids():
    shown = tables_of(papers_beside_ours(), "vp", "ilm_vp")
    assert [table.caption.partition(":")[0] for table in shown] == [
        "vp_table1", "vp_table2", "vp_table4", "vp_table5", "ilm_vp_table1", "ilm_vp_table2"
    ]  # fmt: skip
