"""ABIDE as ILM-VP uses it: brain connectivity as 200 x 200 images, autism or not."""

from pathlib import Path

import numpy as np
from PIL import Image

from vpkit.datasets.sampling import split_off_validation
from vpkit.datasets.source import Source, fitted

ABIDE_LAYOUTS = ("", "upper", "scrambled")
REGIONS = 200
ABIDE_TABLE = "Phenotypic_V1_0b_preprocessed1.csv"
ABIDE_SERIES = "Outputs/cpac/filt_global/rois_cc200"


def load_abide(layout: str, split: str, seed: int, root: Path) -> Source:
    """One split; test is the 10 % that ILM-VP draws (stratified, random_state=1), val 10 % of the rest by `seed`.

    Correlations of the 200 region time series (CC200 atlas; pipeline CPAC, band-pass filtered, global signal
    regressed), undefined ones 0, scaled to [0, 1] by each subject's own range.

    Args:
        layout: "" fills the whole symmetric matrix; "upper" only the cells above the diagonal, 0 elsewhere, so that
            `ExpandPrompt(..., free=abide_free_cells())` may learn the rest as the released code does; "scrambled" is
            the released code's own picture: the values of the lower triangle, row by row, written into the upper one,
            row by row, which puts all but 10 of 19,900 in another pair's cell.
        root: holds `abide/`, with the phenotype table and the folder of `*_rois_cc200.1D` files as
            `nilearn.datasets.fetch_abide_pcp` and the preprocessed connectomes project lay them out.

    Raises:
        FileNotFoundError: the table or the time series are not there.
        ValueError: an unknown layout, or a file that is not such a time series.
    """
    import pandas as pd
    from sklearn.model_selection import train_test_split

    if layout not in ABIDE_LAYOUTS:
        raise ValueError(f"unknown layout abide:{layout}: expected abide, abide:upper or abide:scrambled")
    folder = root / "abide"
    table, series = folder / ABIDE_TABLE, folder / ABIDE_SERIES
    if not table.is_file() or not series.is_dir():
        raise FileNotFoundError(
            f"abide is not complete under {folder}: expected {ABIDE_TABLE} and {ABIDE_SERIES}/*_rois_cc200.1D; "
            "`vpkit fetch abide` gets them (preprocessed-connectomes-project.org: CPAC, filt_global, rois_cc200)"
        )
    rows = pd.read_csv(table, usecols=["FILE_ID", "DX_GROUP"])
    paths = [series / f"{name}_rois_cc200.1D" for name in rows.FILE_ID]
    present = [i for i, path in enumerate(paths) if path.is_file()]  # subjects without images are called no_filename
    if not present:
        raise FileNotFoundError(f"{series} has no time series of a subject in {ABIDE_TABLE}")
    paths, labels = [paths[i] for i in present], (2 - rows.DX_GROUP.to_numpy())[present]
    stamps = "\n".join(f"{path}\0{path.stat().st_size}\0{path.stat().st_mtime_ns}" for path in paths)

    def decode(i: int, size: int) -> np.ndarray:
        return fitted(Image.fromarray(connectivity_image(paths[i], layout)), size)

    source = Source(labels.astype(np.int64), ("non ASD", "ASD"), decode, f"abide {layout}\n{stamps}")
    rest, test = train_test_split(np.arange(len(labels)), test_size=0.1, stratify=labels, random_state=1)
    return source.part(test) if split == "test" else split_off_validation(source.part(rest), split, seed)


def connectivity_image(path: Path, layout: str = "") -> np.ndarray:
    """(200, 200, 3) uint8 of one subject's `.1D` file: a header, then a row of 200 numbers for each scan."""
    try:
        series = np.loadtxt(path, comments="#", ndmin=2)
    except ValueError as error:
        raise ValueError(f"{path}: not a table of numbers ({error})") from error
    if series.shape[1] != REGIONS or len(series) < 2:
        raise ValueError(f"{path}: {series.shape[1]} columns, {len(series)} rows: expected {REGIONS} and at least 2")
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.nan_to_num(np.asarray(np.corrcoef(series.T)))
    row, column = np.tril_indices(REGIONS, -1)
    values = values[row, column]
    values = (values - values.min()) / max(np.ptp(values), np.finfo(float).tiny)
    image = np.zeros((REGIONS, REGIONS))
    if layout == "scrambled":
        image[np.triu_indices(REGIONS, 1)] = values
    else:
        image[column, row] = values
        if layout == "":
            image += image.T
            np.fill_diagonal(image, 1)  # every region agrees with itself
    return np.repeat(np.round(255 * image).astype(np.uint8)[..., None], 3, axis=2)


def abide_free_cells() -> np.ndarray:
    """(200, 200) bool, the cells that "upper" and "scrambled" leave empty: the diagonal and all below it."""
    return np.tri(REGIONS, dtype=bool)
