"""The papers' printed numbers beside those of our own runs, cell by cell."""

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
from scipy.stats import t as student_t

from vpkit.book.results import load_paper_results, load_runs, load_study

__all__ = [
    "gains_beside_papers",
    "grid_of",
    "interval",
    "mean_and_interval",
    "papers_beside_ours",
    "recomputed_means",
    "side_by_side",
    "study_table",
    "summary",
    "tables_of",
]

_BACKBONES = {
    "ResNet-18 (ImageNet-1K)": ("resnet18",),
    "ResNet-50 (ImageNet-1K)": ("resnet50", "resnet50_v1"),
    "ResNeXt-101-32x8d (Instagram)": ("resnext101_instagram",),
    "BiT-M ResNet-50 (ImageNet-21K)": ("bit_m_r50x1",),
    "CLIP": ("ViT-B-32",),
    "CLIP ViT-B/32": ("ViT-B-32",),
    "CLIP ViT-B/16": ("ViT-B-16",),
    "CLIP ResNet-50": ("RN50",),
}
_METHODS = {  # printed: ours, where they differ
    "TP": "zero-shot", "CLIP": "zero-shot", "ZSCLIP": "zero-shot", "LP": "linear probe", "FT": "full fine-tuning",
    "FF": "full fine-tuning", "RLM-VP": "RLM", "FLM-VP": "FLM", "ILM-VP": "ILM",
    "LoGoPrompt+Adapter": "LoGoPrompt + adapter",
}  # fmt: skip
_VP = {"vp": "padding", "logoprompt": "VP+TP"}  # what each paper calls VP
_METRICS = {"accuracy": "test_accuracy", "base_accuracy": "base", "new_accuracy": "new", "harmonic_mean": "H"}
_DOMAINS = {"ImageNetV2": "v2", "ImageNet-Sketch": "sketch", "ImageNet-A": "a", "ImageNet-R": "r"}
Convert = Callable[[str], object] | dict[str, object]
_VARIED: dict[str, tuple[str, Convert]] = {  # the papers' ablations: parameter, and its value as ours has it
    "alpha": ("alpha", float), "cavpt_length": ("candidates", int), "text_prompt_length": ("context_length", int),
    "vctx": ("num_tokens", int), "visual_prompt_location": ("location", {"rand": "random"}),
    "visual_prompt_size": ("strip_ratio", {"1/14": 0.0714, "1/7": 0.143, "2/7": 0.286}),
}  # fmt: skip
_KINDS = {  # Table 4a of LoGoPrompt: our names of its rows
    "text augmentation": "names as images", "paired-text-image": "names pasted", "text-image-selection": "LoGoPrompt",
}  # fmt: skip
_STUDIED = (  # what the stored studies vary
    "shots", "n_train", "n_classes", "prompt_size", "image_size", "template", "strip_ratio", "context_length",
    "location", "include_positive", "num_tokens", "candidates", "alpha", "aware_blocks", "guided_epochs", "epochs",
    "budget", "told", "prompt",
)  # fmt: skip
# Printed cells that no grid covers, by paper, table and method or setting, and why.
_NOT_COVERED = {
    ("dpt", "Table I", "CoCoOp"): "quoted by the paper; chapter 6 does not train it",
    ("dpt", "Table I", "ProGrad"): "quoted by the paper; not one of the book's methods",
    ("dpt", "Table I", "ProDA"): "quoted by the paper; not one of the book's methods",
    ("dpt", "Table V", "ablation:cavpt_length=0"): "VLP without prompts in the last block, which chapter 6 has not",
}
# Cells whose runs another table's grid makes.
_ELSEWHERE = {
    ("dpt", "Table VI", "ablation:vctx=n/a"): "dpt_table1", ("dpt", "Table VI", "ablation:vctx=10"): "dpt_table1",
}  # fmt: skip
_GAINS = {  # ours, over ours: grid, printed names
    ("FLM", "RLM"): ("ilm_vp_table1", "FLM-VP", "RLM-VP"),
    ("ILM", "FLM"): ("ilm_vp_table1", "ILM-VP", "FLM-VP"),
    ("VP+TP", "zero-shot"): ("vp_table1", "VP+TP", "TP"),
    ("VP+TP+LM", "VP+TP"): ("ilm_vp_table2", "VP+TP+LM", "VP+TP"),
    ("CoOp", "zero-shot"): ("dpt_table1", "CoOp", "ZSCLIP"),
    ("LoGoPrompt", "CoOp"): ("logoprompt_table2", "LoGoPrompt", "CoOp"),
    ("VPT", "zero-shot"): ("dpt_table1", "VPT", "ZSCLIP"),
    ("VLP", "CoOp"): ("dpt_table1", "VLP", "CoOp"),
    ("DPT", "VLP"): ("dpt_table1", "DPT", "VLP"),
}
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5, "VI": 6}


def grid_of(paper: str, table: str) -> str | None:
    """The grid that runs a paper's table, such as `ilm_vp_table1`; None if there is none."""
    printed = table.removeprefix("Table ")
    found = re.match(r"\d+", printed)
    number = found[0] if found else _ROMAN.get(printed)
    return None if number is None or paper == "ilm_vp_slides" else f"{paper}_table{number}"


def papers_beside_ours(runs: str | Path | None = None) -> pd.DataFrame:
    """Every printed accuracy of the four papers, with our mean, 95 % interval and number of seeds where we have runs.

    Args:
        runs: folder with a `<grid>.json`, or a folder `<grid>/` of runs, for each grid that was run; the rest, or all
            if it is None, counts as not run.

    Returns:
        The columns of `load_paper_results`, then `grid`, that of its table, `ours`, `low`, `high` in percent, `seeds`
        (0: not run), and `why_not`, the reason why no grid covers a cell, "" where one does. An average is ours only if
        every data set of its table is.
    """
    printed = load_paper_results()
    printed = printed[printed.metric.isin(_METRICS) & (printed.paper != "ilm_vp_slides")].copy()
    printed["grid"] = [grid_of(paper, table) for paper, table in zip(printed.paper, printed.table, strict=True)]
    found = {grid: _runs_of(runs, grid) for grid in printed.grid.dropna().unique()}
    rows = []
    for row in printed.itertuples():
        cell = (row.paper, row.table)
        why_not = next((_NOT_COVERED[*cell, of] for of in (row.method, row.setting) if (*cell, of) in _NOT_COVERED), "")
        values = [] if why_not else _values(row, printed, found.get(_ELSEWHERE.get((*cell, row.setting), row.grid)))
        rows.append(mean_and_interval(values) | {"seeds": len(values), "why_not": why_not})
    extra = pd.DataFrame(rows, index=printed.index)
    return pd.concat([printed, extra[["ours", "low", "high", "seeds", "why_not"]]], axis=1).reset_index(drop=True)


def side_by_side(cells: pd.DataFrame, grid: str):
    """One table of `papers_beside_ours` as a styled one, "printed | ours ± half the interval", with its command above.

    Args:
        cells: what `papers_beside_ours` gives.
        grid: such as "ilm_vp_table1".
    """
    rows = cells[cells.grid == grid]
    ours = [f"{row.ours:.1f} ± {row.high - row.ours:.1f}" if row.seeds else "–" for row in rows.itertuples()]
    text = [f"{value:g} | {our}" for value, our in zip(rows.value, ours, strict=True)]
    rows = rows.assign(text=text, setting=rows.setting.str.replace("ablation:", ""))
    varied = [name for name in ("setting", "metric") if rows[name].nunique() > 1]
    lines = ["dataset", "backbone"] if rows.backbone.nunique() > 1 else ["dataset"]
    table = rows.pivot_table("text", lines, ["method", *varied], "first", sort=False).fillna("")
    command = f"python -m vpkit.book.sweep grids/{grid}.yaml --json results/{grid}.json"
    return table.style.set_caption(f"{grid}: {int((rows.seeds > 0).sum())} of {len(rows)} run here. {command}")


def tables_of(cells: pd.DataFrame, *papers: str) -> list:
    """Every table of some papers, as `side_by_side` gives one."""
    return [side_by_side(cells, grid) for grid in cells.grid[cells.paper.isin(papers)].unique()]


def gains_beside_papers(runs: pd.DataFrame, cells: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What one method has more than another, in points: ours for each run, and the mean that the papers print.

    Args:
        runs: accuracies in [0, 1] of methods that were tested on the same images: columns method, test_accuracy,
            model, shots, dataset and seed.
        cells: what `papers_beside_ours` gives.

    Returns:
        Tables with the columns `pair`, such as "ILM over FLM", and `gain`; ours with the run's other columns, too.
    """
    wide = runs.pivot_table("test_accuracy", ["model", "shots", "dataset", "seed"], "method")
    gains, printed = [], []
    for (better, other), (grid, name, over) in _GAINS.items():
        gain = (100 * (wide[better] - wide[other])).dropna().rename("gain").reset_index()
        gains.append(gain.assign(pair=f"{better} over {other}"))
        rows = cells[(cells.grid == grid) & (cells.metric == "accuracy") & ~cells.dataset.str.contains("Average")]
        theirs = rows.pivot_table("value", ["dataset", "backbone", "setting"], "method")
        printed.append({"pair": f"{better} over {other}", "gain": (theirs[name] - theirs[over]).mean()})
    return pd.concat(gains), pd.DataFrame(printed)


def recomputed_means(cells: pd.DataFrame) -> pd.DataFrame:
    """Harmonic means of LoGoPrompt's Table 1 as printed, computed anew from the accuracies, and what is `off`.

    Args:
        cells: what `papers_beside_ours` gives.
    """
    h = cells[cells.grid == "logoprompt_table1"].pivot_table("value", ["table", "dataset", "method"], "metric")
    h["recomputed"] = 2 * h.base_accuracy * h.new_accuracy / (h.base_accuracy + h.new_accuracy)
    h["off"] = h.harmonic_mean - h.recomputed
    return h.reset_index()


def summary(cells: pd.DataFrame, runs: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """All printed cells, and below them the means of the offline runs in the same columns, in per cent.

    Args:
        cells: what `papers_beside_ours` gives.
        runs: one row a run, with model, method, dataset, shots and test_accuracy in [0, 1].
        level: of the intervals.
    """
    found = runs.groupby(["model", "method", "dataset", "shots"]).test_accuracy
    keys = pd.DataFrame(list(found.groups), columns=["backbone", "method", "dataset", "shots"])
    means = pd.DataFrame([mean_and_interval(values, level) | {"seeds": len(values)} for _, values in found])
    here = pd.concat([keys, means], axis=1)
    here = here.assign(paper="vpkit", table="offline", metric="accuracy", grid="offline")
    return pd.concat([cells, here], ignore_index=True)


def study_table(name: str) -> pd.DataFrame:
    """A stored study as text, "mean (lowest, highest)" test accuracy over its seeds in percent.

    A row for each setting that the study varies and each method in it, a column for each data set.

    Args:
        name: of a chapter, such as "03_ilm_vp".
    """
    study = load_study(name).dropna(subset=["test_accuracy"])
    settings = {column: study[column].map(str).replace("nan", "") for column in _STUDIED if column in study}
    varied = [column for column, values in settings.items() if values.nunique() > 1]
    study = study.assign(**{column: settings[column] for column in varied}, percent=100 * study.test_accuracy)

    def said(values: pd.Series) -> str:
        return f"{values.mean():.1f} ({values.min():.1f}, {values.max():.1f})"

    once = study.drop_duplicates(
        [*varied, "method", "dataset", "seed"]
    )  # a control may have run beside several methods
    return once.pivot_table("percent", [*varied, "method"], "dataset", said, sort=False).fillna("").reset_index()


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Student's t interval of a mean; NaN for fewer than two values."""
    series = pd.Series(list(values), dtype=float)
    n = len(series)
    if n < 2:
        return math.nan, math.nan
    half = student_t.ppf(0.5 + level / 2, n - 1) * series.std(ddof=1) / math.sqrt(n)
    return series.mean() - half, series.mean() + half


def mean_and_interval(values: Iterable[float], level: float = 0.95) -> dict[str, float]:
    """{"ours", "low", "high"} of some runs, in percent of accuracies in [0, 1]; NaN without any."""
    values = [100 * value for value in values]
    low, high = interval(values, level)
    return {"ours": sum(values) / len(values) if values else math.nan, "low": low, "high": high}


def _runs_of(folder: str | Path | None, grid: str) -> pd.DataFrame | None:
    for place in () if folder is None else (Path(folder) / f"{grid}.json", Path(folder) / grid):
        if place.exists():
            return load_runs(place)
    return None


def _values(row, printed: pd.DataFrame, runs: pd.DataFrame | None) -> list[float]:
    """What our runs have for a printed cell, one value a seed."""
    if runs is None:
        return []
    if row.dataset in ("Average", "OOD Average"):
        same = printed[
            (printed.paper == row.paper) & (printed.grid == row.grid) & (printed.metric == row.metric)
            & (printed.method == row.method) & (printed.backbone == row.backbone) & (printed.setting == row.setting)
        ]  # fmt: skip
        parts = [part for part in same.itertuples() if "Average" not in part.dataset]
        parts = [part for part in parts if row.dataset == "Average" or part.dataset != "ImageNet"]
        if not parts and row.paper == "dpt":  # the ablations print averages only, over the sets of Table I
            names = printed[(printed.paper == "dpt") & (printed.table == "Table I")].dataset.unique()
            parts = [row._replace(dataset=name) for name in names if name != "Average"]
        values = [_values(part, printed, runs) for part in parts]
        complete = values and len({len(found) for found in values}) == 1
        return [sum(of_seed) / len(of_seed) for of_seed in zip(*values, strict=True)] if complete else []
    chosen, column = runs[_is_cell(row, runs)], _METRICS[row.metric]
    if row.setting == "domain-generalization":
        column = _DOMAINS.get(row.dataset, column)
    if column not in chosen:
        return []
    # Several chapters of a grid may have a probe; the later one's sees larger images.
    last = chosen.dropna(subset=[column]).sort_values("seed", kind="stable").drop_duplicates("seed", keep="last")
    return last[column].tolist()


def _is_cell(row, runs: pd.DataFrame) -> pd.Series:
    domain = row.setting == "domain-generalization" and row.dataset in _DOMAINS
    dataset = "imagenet" if domain else _plain(row.dataset)
    method = _VP[row.paper] if row.method == "VP" else _METHODS.get(row.method, row.method)
    if row.setting == "base-to-new" and method == "LoGoPrompt":
        method = (
            "LoGoPrompt, first stage"  # class-specific contexts reach new classes through the network that makes them
        )
    wanted = pd.Series(True, index=runs.index)
    if row.setting.startswith("ablation:"):
        name, value = row.setting.removeprefix("ablation:").split("=")
        if name == "visual_prompt_type":
            method = _KINDS[value]
        elif value != "n/a":
            parameter, convert = _VARIED[name]
            ours = convert.get(value, value) if isinstance(convert, dict) else convert(value)
            wanted &= runs[parameter] == ours if parameter in runs else False
    wanted &= (runs.method == method) & runs.model.isin(_BACKBONES[row.backbone])
    wanted &= runs.dataset.map(_plain) == dataset
    if row.shots and not math.isnan(row.shots) and "shots" in runs:
        wanted &= runs.shots == row.shots
    return wanted


def _plain(dataset: str) -> str:
    """One spelling of a data set's name: `Oxford Pets`, `OxfordPets` and `oxford_pets` are the same."""
    name = re.sub(r"[^a-z0-9]", "", str(dataset).lower())
    return {"clevr": "clevrcount"}.get(name, name)
