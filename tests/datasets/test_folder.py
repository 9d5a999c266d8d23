import numpy as np
import pytest
import torch
from PIL import Image

import vpkit


def fill(folder, per_class, names=("cat", "big_dog"), side=9):
    for c, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            Image.fromarray(np.full((side, side + 4, 3), 20 * c + i, np.uint8)).save(folder / name / f"{i:03}.png")


def test_a_plain_folder_is_split_by_seed_and_stratified(tmp_path):
    fill(tmp_path, 50)
    parts = [vpkit.load_dataset(f"folder:{tmp_path}", split, size=4) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [72, 8, 20]
    assert all(part.class_names == ("big dog", "cat") for part in parts)
    assert all(torch.bincount(part.labels).diff() == 0 for part in parts)
    seen = torch.cat([part.images[:, 0, 0, 0].int() + 1000 * part.labels for part in parts])
    assert len(seen.unique()) == 100


def test_all_images_of_a_folder_of_classes(tmp_path):
    fill(tmp_path, 1)  # too few to split
    whole = vpkit.load_dataset(f"folder:{tmp_path}", "all", size=8)
    assert (whole.labels.tolist(), whole.class_names) == ([0, 1], ("big dog", "cat"))
    with pytest.raises(ValueError, match="unknown split 'all'"):
        vpkit.load_dataset("icons", "all")


def test_split_folders_are_taken_as_they_are(tmp_path):
    for split, count in {"train": 10, "val": 3, "test": 4}.items():
        fill(tmp_path / split, count)
    sizes = [len(vpkit.load_dataset(f"folder:{tmp_path}", split, size=4)) for split in ("train", "val", "test")]
    assert sizes == [20, 6, 8]


def test_without_val_a_tenth_of_train_is_held_out(tmp_path):
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 4)
    train, val = (vpkit.load_dataset(f"folder:{tmp_path}", split, size=4) for split in ("train", "val"))
    assert (len(train), len(val)) == (36, 4)


def test_a_changed_file_is_decoded_again(tmp_path):
    fill(tmp_path, 10)
    before = vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4).images.clone()
    for path in (tmp_path / "cat").iterdir():
        Image.fromarray(np.full((30, 30, 3), 250, np.uint8)).save(path)
    after = vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4)
    assert (after.images[after.labels == 1] == 250).all()
    assert not torch.equal(before, after.images)


def test_other_files_are_passed_over(tmp_path):
    fill(tmp_path, 10)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / ".hidden.png").write_text("x")
    (tmp_path / "README.md").write_text("x")
    assert len(vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4)) > 0


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        vpkit.load_dataset(f"folder:{tmp_path / 'none'}", "train")
    with pytest.raises(ValueError, match="has no images"):
        vpkit.load_dataset(f"folder:{tmp_path}", "train")
    fill(tmp_path / "one", 5, names=("cat",))
    with pytest.raises(ValueError, match=r"has one class \(cat\): a classifier needs at least two"):
        vpkit.load_dataset(f"folder:{tmp_path / 'one'}", "train")
    (tmp_path / "one" / "dog").mkdir()
    with pytest.raises(ValueError, match="has no image of: dog"):
        vpkit.load_dataset(f"folder:{tmp_path / 'one'}", "train")
    fill(tmp_path / "half" / "train", 3)
    with pytest.raises(ValueError, match="has train only: expected train and test"):
        vpkit.load_dataset(f"folder:{tmp_path / 'half'}", "train")
    fill(tmp_path / "half" / "test", 3, names=("cat", "cow"))
    with pytest.raises(ValueError, match="train and test differ in the classes big dog, cow"):
        vpkit.load_dataset(f"folder:{tmp_path / 'half'}", "train")


def test_unreadable_files_are_named(tmp_path):
    fill(tmp_path, 10)
    for i in range(10):
        (tmp_path / "cat" / f"{i:03}.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(ValueError, match=r"images cannot be decoded:\n.*cat/00\d\.png: not a readable image"):
        vpkit.load_dataset(f"folder:{tmp_path}", "train", size=4)
