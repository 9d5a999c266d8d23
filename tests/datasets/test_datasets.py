import multiprocessing
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from pretend_device import DEVICE, pretend_device

import vpkit
from vpkit.datasets import DATASETS, SPLITS, Source
from vpkit.datasets.sampling import split_pool, stratified_choice, stratified_split
from vpkit.datasets.source import file_source, read_image
from vpkit.files import cache_folder, write_atomically

EMBEDDED = [name for name, row in DATASETS.items() if not row.on_disk]


@pytest.mark.slow
@pytest.mark.parametrize("name", EMBEDDED)
def test_every_row_loads_as_described(name):
    row = DATASETS[name]
    for split in SPLITS:
        image_set = vpkit.load_dataset(name, split, size=8)
        assert image_set.images.shape[1:] == (3, 8, 8)
        assert image_set.images.dtype == torch.uint8
        assert image_set.labels.dtype == torch.int64
        assert len(image_set.class_names) == row.classes
        assert (torch.bincount(image_set.labels, minlength=row.classes) > 0).all()
        assert image_set.images.float().std() > 5  # not a blank set


def test_splits_of_one_pool_are_disjoint_and_complete():
    labels = np.repeat(np.arange(4), [50, 100, 31, 7])
    pool = Source(labels, tuple("abcd"), lambda i, size: np.full((size, size, 3), i, np.uint8))
    for seed in (0, 1):
        parts = [split_pool(pool, split, seed) for split in SPLITS]
        seen = [[part.decode(i, 1)[0, 0, 0] for i in range(len(part.labels))] for part in parts]
        assert sorted(sum(seen, [])) == list(range(188))  # noqa: RUF017
        assert all(
            labels[i] == label
            for part, s in zip(parts, seen, strict=True)
            for i, label in zip(s, part.labels, strict=True)
        )
        assert all(set(part.labels) == {0, 1, 2, 3} for part in parts)


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
    with pytest.raises(
        ValueError, match=r"unknown dataset 'mnist': expected one of icons, pictograms, textile, mnist5k, digits,"
    ):
        vpkit.load_dataset("mnist", "train")
    with pytest.raises(ValueError, match=r"unknown split 'testing': expected one of train, val, test"):
        vpkit.load_dataset("digits", "testing")


def test_impossible_sizes_and_subsets_are_refused():
    with pytest.raises(ValueError, match="size=0"):
        vpkit.load_dataset("digits", "train", size=0)
    with pytest.raises(ValueError, match="subset=9 leaves classes empty: digits has 10 classes"):
        vpkit.load_dataset("digits", "train", subset=9)


def test_a_fraction_is_taken_of_every_class():
    part = vpkit.load_dataset("digits", "train", fraction=0.5)
    whole = vpkit.load_dataset("digits", "train")
    assert len(part) == round(len(whole) / 2)
    assert (torch.bincount(part.labels) - torch.bincount(whole.labels) / 2).abs().max() <= 0.5
    with pytest.raises(ValueError, match=r"fraction=1.5: expected a share in \(0, 1\]"):
        vpkit.load_dataset("digits", "train", fraction=1.5)
    with pytest.raises(ValueError, match="subset or fraction"):
        vpkit.load_dataset("digits", "train", fraction=0.5, subset=20)


def test_an_empty_class_is_named(monkeypatch):
    source = Source(np.array([0, 0, 2, 2]), ("a", "b", "c"), lambda i, size: np.zeros((size, size, 3), np.uint8))
    monkeypatch.setitem(DATASETS, "gap", vpkit.datasets.DatasetRow(lambda split, seed: source, 3, 8, "", ""))
    with pytest.raises(ValueError, match="gap/train has no image of: b"):
        vpkit.load_dataset("gap", "train")


def test_a_corrupt_image_is_named(tmp_path):
    path = tmp_path / "broken.jpg"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"broken\.jpg: not a readable image"):
        read_image(path, 8)
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"text\.png: not a readable image"):
        read_image(tmp_path / "text.png", 8)


# --- the cache ---------------------------------------------------------------------------------------------


def _cache_file(name):
    (path,) = (cache_folder() / "datasets").glob(f"{name}-144-7px*")
    return path


@pytest.fixture
def counting(monkeypatch):
    """A data set that counts how often it is decoded, and whose images can be changed."""
    state = {"decoded": 0, "colour": 10}

    def load(split, seed):
        def decode(i, size):
            state["decoded"] += 1
            return np.full((size, size, 3), state["colour"] + i, np.uint8)

        return Source(np.arange(4) % 2, ("a", "b"), decode, fingerprint=str(state["colour"]))

    monkeypatch.setitem(DATASETS, "counting", vpkit.datasets.DatasetRow(load, 2, 8, "", ""))
    return state


def test_a_split_is_decoded_once(counting, monkeypatch, tmp_path):
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path))
    first, second = vpkit.load_dataset("counting", "train"), vpkit.load_dataset("counting", "train")
    assert counting["decoded"] == 4
    assert torch.equal(first.images, second.images)
    assert first.images[:, 0, 0, 0].tolist() == [10, 11, 12, 13]


def test_changed_images_are_decoded_again(counting):
    vpkit.load_dataset("counting", "train")
    counting["colour"] = 20
    assert vpkit.load_dataset("counting", "train").images[0, 0, 0, 0] == 20


def test_a_cache_of_another_version_is_rebuilt(counting, monkeypatch):
    vpkit.load_dataset("counting", "train")
    before = counting["decoded"]
    monkeypatch.setattr(vpkit.datasets.cache, "_FORMAT", -1)
    vpkit.load_dataset("counting", "train")
    assert counting["decoded"] == before + 4


@pytest.mark.slow
def test_a_set_larger_than_the_memory_limit_is_streamed(tmp_path):
    """600 MB of images, written and opened by a process that grows by less than 200 MB."""
    code = """
import resource, numpy as np, torch, vpkit
from vpkit.datasets import DATASETS, DatasetRow, Source
side, count = 1000, 200
source = Source(np.arange(count) % 2, ("a", "b"), lambda i, size: np.full((size, size, 3), i, np.uint8))
DATASETS["large"] = DatasetRow(lambda split, seed: source, 2, side, "", "")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = vpkit.load_dataset("large", "train")
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
assert images.images.numel() == 600_000_000
assert grown < 200_000, f"{grown} kB"
assert images.images[137, 2, 5, 5] == 137
"""
    environment = os.environ | {"VPKIT_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=300)


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


def test_what_a_killed_writer_left_is_removed_later(tmp_path):
    now = time.time()
    for name, age in ((".kept[1].old.part", 3700), (".kept[1].new.part", 60), (".other.old.part", 3700)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (now - age, now - age))
    write_atomically(tmp_path / "kept[1]", lambda part: part.write_text("whole"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept[1].new.part", ".other.old.part", "kept[1]"]


def test_an_unwritable_cache_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path / "file"))  # a file where a folder is needed
    with pytest.raises(OSError, match="point VPKIT_CACHE"):
        vpkit.load_dataset("digits", "val", size=6)


def _load_in_child(folder):
    os.environ["VPKIT_CACHE"] = folder
    return vpkit.load_dataset("digits", "train", size=5).images.sum().item()


@pytest.mark.slow
def test_two_processes_building_one_cache_both_succeed_and_one_decodes(tmp_path, capfd):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.map(_load_in_child, [str(tmp_path)] * 2)
    assert sums[0] == sums[1]
    assert len(list((tmp_path / "datasets").glob("*.npy"))) == 1
    assert not list((tmp_path / "datasets").glob(".*.part"))
    assert capfd.readouterr().err.count("preparing") == 1, "the other one should have waited"


def _counting(monkeypatch, row="digits"):
    """The positions that are decoded of the row, in a list that grows."""
    decoded, original = [], vpkit.datasets.DATASETS[row].load

    def load(split, seed):
        source = original(split, seed)
        pool = source.pool
        decode = lambda i, size: decoded.append(int(i)) or pool.decode(i, size)  # noqa: E731
        return replace(pool, decode=decode).part(source.positions)

    monkeypatch.setitem(vpkit.datasets.DATASETS, row, replace(vpkit.datasets.DATASETS[row], load=load))
    return decoded


@pytest.mark.parametrize("asked", [{"subset": 60}, {"fraction": 0.04}, {"shots": 5}, {"classes": ("7", "1")}])
def test_of_a_small_part_only_that_part_is_decoded(asked, monkeypatch, tmp_path):
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path))
    decoded = _counting(monkeypatch)
    part = vpkit.load_dataset("digits", "train", size=9, **asked)
    assert len(decoded) == len(part) < 300
    again = vpkit.load_dataset("digits", "train", size=9, **asked)
    assert len(decoded) == len(part), "decoded twice"
    whole = vpkit.load_dataset("digits", "train", size=9)
    assert len(decoded) == len(part) + 1797  # the images of all splits
    assert len(whole) == 1294
    (tmp_path / "datasets").rename(tmp_path / "parts")
    vpkit.load_dataset("digits", "train", size=9)  # the whole set is there now, the part is not
    decoded.clear()
    from_whole = vpkit.load_dataset("digits", "train", size=9, **asked)
    assert decoded == []
    for other in (again, from_whole):
        assert torch.equal(part.images, other.images)
        assert torch.equal(part.labels, other.labels)
        assert part.class_names == other.class_names


def test_the_splits_of_all_seeds_are_decoded_once(monkeypatch, tmp_path):
    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path))
    decoded = _counting(monkeypatch)
    assert len(vpkit.load_dataset("digits", "train", size=9, subset=1000)) == 1000
    assert len(decoded) == 1797
    seen = []
    for seed in (0, 1, 2):
        parts = [vpkit.load_dataset("digits", split, size=9, seed=seed) for split in ("train", "val", "test")]
        assert sum(map(len, parts)) == 1797
        seen.append(torch.cat([part.images.flatten(1) for part in parts]).unique(dim=0))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    assert len(decoded) == 1797
    assert len(list((tmp_path / "datasets").glob("*.npy"))) == 1


def test_shots_and_classes_are_those_of_the_image_set():
    whole = vpkit.load_dataset("digits", "train", size=9, seed=3)
    shots = vpkit.load_dataset("digits", "train", size=9, seed=3, shots=4)
    assert torch.equal(shots.images, whole.few_shot(4, 3).images)
    assert torch.equal(shots.labels, whole.few_shot(4, 3).labels)
    pair = vpkit.load_dataset("digits", "train", size=9, seed=3, classes=["7", "1"])
    assert torch.equal(pair.images, whole.select_classes("7", "1").images)
    assert torch.equal(pair.labels, whole.select_classes("7", "1").labels)
    assert pair.class_names == ("7", "1")
    both = vpkit.load_dataset("digits", "train", size=9, seed=3, classes=["7", "1"], shots=4)
    assert both.labels.bincount().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fraction": 0.5, "subset": 20}, "give subset or fraction, not both"),
        ({"shots": 2, "subset": 9}, "subset=9"),
        ({"shots": 0}, "shots=0"),
        ({"classes": ["7", "x"]}, r"no class x; expected some of 0, 1, 2"),
        ({"classes": []}, r"no class \(none named\)"),
    ],
)
def test_an_impossible_part_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        vpkit.load_dataset("digits", "train", size=9, **asked)


def test_every_unreadable_file_is_named(tmp_path, monkeypatch):
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(path)
    for path in paths[1:3]:
        path.write_bytes(b"broken")
    source = file_source(paths, [0, 1, 0, 1], ("a", "b"))
    monkeypatch.setitem(DATASETS, "files", vpkit.datasets.DatasetRow(lambda split, seed: source, 2, 8, "", ""))
    with pytest.raises(ValueError, match=r"2 of 4 images cannot be decoded:\n.*1\.png.*\n.*2\.png"):
        vpkit.load_dataset("files", "train")
    assert not list((cache_folder() / "datasets").glob("files*"))


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


def test_a_set_too_large_for_the_gpu_sends_its_batches(image_set, monkeypatch):
    monkeypatch.setattr(vpkit.datasets.image_set, "free_memory", lambda device: image_set.images.numel())
    with pretend_device():
        large = image_set.to(DEVICE)
        assert large.images.device.type == "cpu"
        assert large.labels.device.type == large.device.type == DEVICE.type
        for images, labels in large.batches(10):
            assert images.device == labels.device == torch.device("meta:0")
        assert large[large.labels < 2].images.device.type == "cpu"
    assert image_set.to("cpu").images.device.type == "cpu"


def test_classes_of_one_name_stay_apart(image_set):
    twins = replace(image_set, class_names=("red", "blue", "red", "white"))
    base, new = twins.base_new_split()
    assert (base.class_names, new.class_names) == (("red", "blue"), ("red", "white"))
    assert torch.equal(new.images[new.labels == 0], image_set.images[image_set.labels == 2])
    assert len(base) + len(new) == len(image_set)


def test_a_subset_keeps_its_class_names(image_set):
    part = image_set[image_set.labels < 2]
    assert len(part) == 32
    assert part.class_names == image_set.class_names


def test_only_relabels_in_the_order_given(image_set):
    part = image_set.select_classes("blue", "red")
    assert part.class_names == ("blue", "red")
    assert torch.equal(part.images[part.labels == 0], image_set.images[image_set.labels == 2])
    assert torch.equal(part.images[part.labels == 1], image_set.images[image_set.labels == 0])
    with pytest.raises(ValueError, match="no class pink: expected red, green, blue, white"):
        image_set.select_classes("red", "pink")


def test_a_part_of_the_few_shots_keeps_every_class():
    shots = vpkit.load_dataset("digits", "train", size=8, seed=3, shots=4)
    part = vpkit.load_dataset("digits", "train", size=8, seed=3, shots=4, subset=25)
    counts = torch.bincount(part.labels, minlength=10)
    assert (len(part), int(counts.min()), int(counts.max())) == (25, 2, 3)
    of_the_shots = {image.numpy().tobytes() for image in shots.images}
    assert all(image.numpy().tobytes() in of_the_shots for image in part.images)
    whole = vpkit.load_dataset("digits", "train", size=8, seed=3, shots=4, subset=1000)
    assert torch.equal(whole.images, shots.images)  # nothing is cut: as drawn


def test_few_shot_draws_exactly_and_as_coop_does():
    images = torch.zeros(12, 3, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(12)
    pool = vpkit.ImageSet(images, torch.tensor([0] * 6 + [1] * 6), ("a", "b"))
    drawn = pool.few_shot(2, seed=1)
    assert drawn.images[:, 0, 0, 0].tolist() == [1, 4, 6, 8]  # a1, a4, b0, b2
    assert len(pool.few_shot(6)) == 12
    with pytest.raises(ValueError, match=r"shots=7: the smallest class has 6 images, so expected 1..6"):
        pool.few_shot(7)
    with pytest.raises(ValueError, match="shots=0"):
        pool.few_shot(0)


@pytest.mark.parametrize(("classes", "sizes"), [(10, (5, 5)), (37, (19, 18)), (47, (24, 23)), (102, (51, 51))])
def test_base_and_new_are_the_two_halves_of_the_classes(classes, sizes):
    names = tuple(f"c{i:03}" for i in range(classes))
    images = torch.zeros(classes, 3, 1, 1, dtype=torch.uint8)
    base, new = vpkit.ImageSet(images, torch.arange(classes), names).base_new_split()
    assert (len(base.class_names), len(new.class_names)) == sizes
    assert base.class_names + new.class_names == names
    assert torch.equal(new.labels, torch.arange(sizes[1]))
    with pytest.raises(ValueError, match="1 class cannot be split"):
        base.select_classes("c000").base_new_split()


def test_resized_keeps_constant_images(image_set):
    flat = vpkit.ImageSet(torch.full((2, 3, 4, 4), 77, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), ("a",))
    assert torch.equal(flat.resized(9).images, torch.full((2, 3, 9, 9), 77, dtype=torch.uint8))
    assert image_set.resized(16) is image_set


def test_parts_and_sizes_share_the_images_and_equal_copies(image_set):
    part = image_set.select_classes("blue", "red")[2:].few_shot(3, seed=1)
    assert part.stored is image_set.stored
    drawn = part.resized(24)
    assert drawn.stored is image_set.stored
    assert drawn.shape == (6, 3, 24, 24)
    large = torch.nn.functional.interpolate(part.images.float(), (24, 24), mode="bilinear", antialias=True)
    assert torch.equal(drawn.images, large.round().clamp(0, 255).byte())
    assert torch.equal(drawn.resized(16).images, part.images)  # sizes do not pile up
    for x, y in drawn.batches(4):
        assert torch.equal((x * 255).round().byte(), drawn.images[: len(y)]) or len(y) < 4
    moved = drawn.to("cpu")
    assert torch.equal(moved.images, drawn.images)
    assert torch.equal(torch.cat([y for _, y in drawn.batches(4)]), drawn.labels)


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


def test_a_pass_without_gradients_takes_batches_of_the_devices_size(image_set):
    assert image_set.batches().batch_size == 64
    with pretend_device():
        on_device = image_set.to(DEVICE)
        assert on_device.batches().batch_size == 512
        assert on_device.batches(32).batch_size == 32


def test_three_splits_are_loaded_at_once_with_the_same_options():
    loaded = vpkit.load_splits("digits", (30, 20, None), size=8, seed=1)
    alone = [
        vpkit.load_dataset("digits", s, size=8, subset=n, seed=1) for s, n in zip(SPLITS, (30, 20, None), strict=True)
    ]
    assert [len(split) for split in loaded] == [30, 20, 359]
    for ours, theirs in zip(loaded, alone, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert ours.split == theirs.split
    with pytest.raises(ValueError, match="sizes=\\(30, 20\\): expected three"):
        vpkit.load_splits("digits", (30, 20))
