import multiprocessing
import os

import numpy as np
import pytest
import torch
from PIL import Image

import vpkit
from vpkit.cache import cache_folder, write_atomically
from vpkit.datasets import DATASETS, SPLITS, embedded
from vpkit.datasets.sampling import stratified_choice, stratified_split


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_loads_as_described(name):
    row = DATASETS[name]
    for split in SPLITS:
        image_set = vpkit.load_dataset(name, split, size=8)
        assert image_set.images.shape[1:] == (3, 8, 8)
        assert image_set.images.dtype == torch.uint8
        assert image_set.labels.dtype == torch.int64
        assert image_set.class_names == row.class_names
        assert (torch.bincount(image_set.labels, minlength=len(row.class_names)) > 0).all()
        assert image_set.images.float().std() > 5  # not a blank set


@pytest.mark.parametrize(("name", "total"), [("textile", 2000), ("mnist5k", 5000), ("digits", 1797)])
def test_splits_of_one_pool_are_disjoint_and_complete(name, total):
    loader = {"textile": embedded.TEXTILE_NAMES, "mnist5k": range(10), "digits": range(10)}[name]
    labels = np.sort(np.arange(total) % len(loader))
    for seed in (0, 1):
        parts = [embedded._part(labels, split, seed) for split in SPLITS]
        assert sum(map(len, parts)) == total
        assert len(np.unique(np.concatenate(parts))) == total


def test_no_seed_moves_the_test_split():
    first, second = (vpkit.load_dataset("digits", "test", seed=seed) for seed in (0, 1))
    assert torch.equal(first.images, second.images)
    train = [vpkit.load_dataset("digits", "train", seed=seed).images for seed in (0, 1)]
    assert not torch.equal(*train)


def test_a_subset_is_stratified_seeded_and_at_most():
    subset = [vpkit.load_dataset("digits", "train", subset=100, seed=0) for _ in range(2)]
    assert torch.equal(subset[0].images, subset[1].images)
    assert torch.bincount(subset[0].labels).tolist() == [10] * 10
    assert len(vpkit.load_dataset("digits", "val", subset=10**6)) == 144


def test_stratified_choice_has_the_exact_count_and_leaves_no_class_out():
    labels = np.repeat([0, 1, 2], [97, 2, 1])
    for count in (3, 4, 10, 50, 99, 100):
        chosen = stratified_choice(labels, count, seed=3)
        assert len(np.unique(chosen)) == count
        assert set(labels[chosen]) == {0, 1, 2}
    rest, held_out = stratified_split(np.repeat([0, 1], 50), 0.2, seed=0)
    assert np.bincount(np.repeat([0, 1], 50)[held_out]).tolist() == [10, 10]
    assert not set(rest) & set(held_out)


def test_unknown_names_list_the_good_ones():
    with pytest.raises(ValueError, match=r"unknown dataset 'mnist': expected one of icons, textile, mnist5k, digits"):
        vpkit.load_dataset("mnist", "train")
    with pytest.raises(ValueError, match=r"unknown split 'testing': expected one of train, val, test"):
        vpkit.load_dataset("digits", "testing")


def test_impossible_sizes_and_subsets_are_refused():
    with pytest.raises(ValueError, match="size=0"):
        vpkit.load_dataset("digits", "train", size=0)
    with pytest.raises(ValueError, match="subset=9 leaves classes empty: digits has 10 classes"):
        vpkit.load_dataset("digits", "train", subset=9)


def test_an_empty_class_is_named(monkeypatch):
    row = vpkit.datasets.DatasetRow(
        lambda split, size, seed: (np.zeros((4, size, size, 3), np.uint8), np.array([0, 0, 2, 2])),
        ("a", "b", "c"), 8, "", "",
    )  # fmt: skip
    monkeypatch.setitem(DATASETS, "gap", row)
    with pytest.raises(ValueError, match="gap/train has no image of: b"):
        vpkit.load_dataset("gap", "train")


def test_a_corrupt_image_is_named(tmp_path):
    path = tmp_path / "broken.jpg"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken\.jpg: not a readable image"):
        embedded.read_image(path, 8)
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png: not a readable image"):
        embedded.read_image(tmp_path / "text.png", 8)


# --- the cache ---------------------------------------------------------------------------------------------


def _cache_file(name):
    (path,) = (cache_folder() / "datasets").glob(f"{name}-val-7px*")
    return path


def test_a_split_is_decoded_once(monkeypatch):
    first = vpkit.load_dataset("digits", "val", size=7)
    row = DATASETS["digits"]
    broken = vpkit.datasets.DatasetRow(None, row.class_names, row.native_size, row.split, row.source)
    monkeypatch.setitem(DATASETS, "digits", broken)  # a second decode would call None
    assert torch.equal(vpkit.load_dataset("digits", "val", size=7).images, first.images)


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty"])
def test_a_damaged_cache_is_rebuilt(damage):
    first = vpkit.load_dataset("digits", "val", size=7)
    path = _cache_file("digits")
    content = {"cut": path.read_bytes()[: path.stat().st_size // 2], "foreign": b"x" * 5000, "empty": b""}[damage]
    path.unlink()  # the loaded images are mapped from this very file: damage a new one
    path.write_bytes(content)
    assert torch.equal(vpkit.load_dataset("digits", "val", size=7).images, first.images)
    assert path.stat().st_size > 5000  # whole again


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def fail(part):
        part.write_bytes(b"half")
        raise RuntimeError("power cut")

    (tmp_path / "kept").write_text("old")
    with pytest.raises(RuntimeError, match="power cut"):
        write_atomically(tmp_path / "kept", fail)
    assert (tmp_path / "kept").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_unwritable_cache_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path / "file"))  # a file where a folder is needed
    with pytest.raises(OSError, match="point VPKIT_CACHE"):
        vpkit.load_dataset("digits", "val", size=6)


def _load_in_child(folder):
    os.environ["VPKIT_CACHE"] = folder
    return vpkit.load_dataset("digits", "train", size=5).images.sum().item()


def test_two_processes_building_one_cache_both_succeed(tmp_path):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_load_in_child, [str(tmp_path)] * 2)
    assert sums[0] == sums[1]
    assert len(list((tmp_path / "datasets").iterdir())) == 1


# --- ImageSet ----------------------------------------------------------------------------------------------


def test_batches_are_floats_in_order_and_cover_the_set(image_set):
    batches = image_set.batches(10)
    images, labels = zip(*batches, strict=True)
    assert len(batches) == len(images) == 7
    assert batches.class_names == image_set.class_names
    assert torch.equal(torch.cat(labels), image_set.labels)
    assert torch.allclose(torch.cat(images) * 255, image_set.images.float(), atol=1e-4)
    assert max(part.max() for part in images) <= 1


def test_shuffling_is_a_seeded_permutation_drawn_anew(image_set):
    def order(seed):
        batches = image_set.batches(16, shuffle=True, generator=torch.Generator().manual_seed(seed))
        return [torch.cat([images.sum((1, 2, 3)) for images, _ in batches]) for _ in range(2)]

    first, again, other = order(0), order(0), order(1)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    assert torch.equal(first[0].sort().values, first[1].sort().values)


def test_a_subset_keeps_its_class_names(image_set):
    part = image_set[image_set.labels < 2]
    assert len(part) == 32
    assert part.class_names == image_set.class_names


def test_only_relabels_in_the_order_given(image_set):
    part = image_set.only("blue", "red")
    assert part.class_names == ("blue", "red")
    assert torch.equal(part.images[part.labels == 0], image_set.images[image_set.labels == 2])
    assert torch.equal(part.images[part.labels == 1], image_set.images[image_set.labels == 0])
    with pytest.raises(ValueError, match="no class pink: expected red, green, blue, white"):
        image_set.only("red", "pink")


def test_resized_keeps_constant_images(image_set):
    flat = vpkit.ImageSet(torch.full((2, 3, 4, 4), 77, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), ("a",))
    assert torch.equal(flat.resized(9).images, torch.full((2, 3, 9, 9), 77, dtype=torch.uint8))
    assert image_set.resized(16) is image_set


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64), "uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"\(N, 3, h, w\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), r"labels must be \(2,\)"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 5]), "labels run from 0 to 5"),
    ],
)
def test_parts_that_do_not_fit_are_refused(images, labels, message):
    with pytest.raises(ValueError, match=message):
        vpkit.ImageSet(images, labels, ("a", "b"))


def test_a_batch_size_of_zero_is_refused(image_set):
    with pytest.raises(ValueError, match="batch_size=0"):
        image_set.batches(0)
