"""Broken and hostile files: mutated real ones raise what is documented and nothing else; no path leaves its folder."""

import ast
import contextlib
import io
import json
import struct
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import small_network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import vpkit
from vpkit.book.grids import read_grid
from vpkit.datasets.source import read_image
from vpkit.datasets.torchvision_sets import load_coop_split
from vpkit.tasks.files import load_task, save_task
from vpkit.tasks.task import fit_task
from vpkit.training.checkpoint import load_checkpoint, save_checkpoint

ROOT = Path(__file__).resolve().parents[2]
FUZZ = settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def mutated(draw, original: bytes):
    """A few bytes changed, cut out, doubled or added; or the end cut off."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        # half of the places lie in the first bytes, where formats keep their sizes
        end = draw(st.sampled_from([min(len(data), 200), len(data)]))
        place = draw(st.integers(0, end - 1))
        kind = draw(st.sampled_from(["flip", "cut", "double", "insert", "end"]))
        if kind == "flip":
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place : place + draw(st.integers(1, 64))]
        elif kind == "double":
            data[place:place] = data[place : place + draw(st.integers(1, 64))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        else:
            del data[place:]
    return bytes(data)


@st.composite
def rearranged(draw, original):
    """The same JSON with some values replaced by others of any kind, or keys renamed."""
    odd = st.sampled_from([None, True, -1, 1e308, "", "../x", [], {}, [[]], {"a": {}}, "x" * 3000])

    def change(value):
        if draw(st.integers(0, 5)) == 0:
            return draw(odd)
        if isinstance(value, dict):
            return {("?" + k if draw(st.integers(0, 9)) == 0 else k): change(v) for k, v in value.items()}
        return [change(v) for v in value[:5]] if isinstance(value, list) else value

    return change(original)


def allowed(read, *exceptions):
    """Run it; only what its docstring names may come out."""
    with contextlib.suppress(*exceptions):
        read()


@cache
def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, format=kind)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_images(kind, tmp_path):
    path = tmp_path / f"image.{kind.lower()}"

    @FUZZ
    @given(mutated(picture(kind)))
    def fuzz(data):
        path.write_bytes(data)
        allowed(lambda: read_image(path, 16), ValueError)

    fuzz()


@pytest.mark.slow
def test_a_decompression_bomb_is_refused_in_little_memory(tmp_path):
    """A sound PNG of 200 kB whose pixels would take 4.8 GB as RGB."""
    side, squeeze = 40_000, zlib.compressobj()
    rows = b"".join(squeeze.compress(bytes(1 + side // 8)) for _ in range(side)) + squeeze.flush()
    path = tmp_path / "bomb.png"
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        for name, chunk in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            file.write(struct.pack(">I", len(chunk)) + name + chunk + struct.pack(">I", zlib.crc32(name + chunk)))
    script = f"""
from vpkit.datasets.source import read_image
try:
    read_image({str(path)!r}, 32)
except ValueError as error:
    print(error)
(peak,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(int(peak.split()[1]) // 1024, "MB")
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "not a readable image" in said
    assert "decompression bomb" in said
    assert int(said.split()[-2]) < 1500  # torch alone takes about 500


def test_prompts(tmp_path):
    path = tmp_path / "prompt.safetensors"
    vpkit.prompts.save_prompt(path, vpkit.prompts.PadPrompt(16, 2), vpkit.mappings.identity_mapping(3), note="x")
    original = path.read_bytes()

    @FUZZ
    @given(mutated(original))
    def fuzz(data):
        path.write_bytes(data)
        allowed(
            lambda: vpkit.prompts.load_prompt(path, vpkit.prompts.PadPrompt(16, 2), vpkit.mappings.identity_mapping(3)),
            ValueError,
        )

    fuzz()


@pytest.fixture
def saved(tmp_path, image_set, monkeypatch, model):
    """A saved task, on a network of no size at all."""
    monkeypatch.setattr("vpkit.tasks.task.source_model", lambda *_arguments: model)
    task = fit_task(image_set, image_set, epochs=1, canvas_size=16, prompt_size=3, mapping="FLM")
    return save_task(tmp_path / "prompt.safetensors", task)


def test_saved_tasks(saved):
    original = saved.read_bytes()

    @FUZZ
    @given(mutated(original))
    def fuzz(data):
        saved.write_bytes(data)
        allowed(lambda: load_task(saved), ValueError)

    fuzz()


def test_cards_of_saved_tasks(saved):
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(saved, "pt") as file:
        described = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    @FUZZ
    @given(rearranged(json.loads(described["card"])))
    def fuzz(card):
        save_file(tensors, saved, metadata=described | {"card": json.dumps(card)})
        allowed(lambda: load_task(saved), ValueError, FileNotFoundError)

    fuzz()


def test_checkpoints(tmp_path, image_set):
    model = vpkit.models.FrozenModel(small_network(), [f"source {s}" for s in range(12)], image_size=16)
    classifier = vpkit.PromptedClassifier(vpkit.prompts.PadPrompt(16, 2), model, vpkit.mappings.random_mapping(12, 4))
    optimizer = torch.optim.Adam(classifier.prompt.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    batches = image_set.batches(16, shuffle=True, generator=torch.Generator().manual_seed(0))
    vpkit.train_epoch(classifier, batches, optimizer, scheduler)
    path, state = tmp_path / "run.safetensors", (classifier, optimizer, scheduler, batches, 3)
    save_checkpoint(path, *state, [{"epoch": 1}])
    original = path.read_bytes()

    @FUZZ
    @given(mutated(original))
    def fuzz(data):
        path.write_bytes(data)
        allowed(lambda: load_checkpoint(path, *state), ValueError)

    fuzz()


def test_results(tmp_path):
    path = vpkit.book.save_run(
        tmp_path / "run.json", method="ILM", parameters={"seed": 0}, metrics={"test_accuracy": 0.5}
    )
    original = path.read_bytes()

    @FUZZ
    @given(st.one_of(mutated(original), rearranged(json.loads(original)).map(lambda run: json.dumps(run).encode())))
    def fuzz(data):
        path.write_bytes(data)
        allowed(lambda: vpkit.book.load_runs(tmp_path), ValueError)

    fuzz()


def test_split_files(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    rows = []
    for i in range(6):
        Image.new("RGB", (8, 8)).save(images / f"{i}.jpg")
        rows.append([f"{i}.jpg", i % 2, "ab"[i % 2]])
    parts = {"train": rows[:2], "val": rows[2:4], "test": rows[4:]}
    path = tmp_path / "split_zhou_X.json"

    @FUZZ
    @given(st.one_of(mutated(json.dumps(parts).encode()), rearranged(parts).map(lambda p: json.dumps(p).encode())))
    def fuzz(data):
        path.write_bytes(data)
        allowed(lambda: load_coop_split(path, "train"), ValueError)

    path.write_text(json.dumps(parts))
    assert len(load_coop_split(path, "train").labels) == 2
    fuzz()


@pytest.mark.parametrize("name", ["../outside.jpg", "/etc/hostname", "link.jpg", "sub/../../../outside.jpg"])
def test_names_in_split_files_do_not_leave_their_folder(tmp_path, name):
    folder = tmp_path / "set"
    (folder / "images" / "sub").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "outside.jpg")
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.jpg")
    (folder / "images" / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    rows = [["a.jpg", 0, "a"], [name if name != "../outside.jpg" else "../../outside.jpg", 1, "b"]]
    (folder / "split_zhou_X.json").write_text(json.dumps({"train": rows, "val": rows, "test": rows}))
    with pytest.raises(ValueError, match="lies outside"):
        load_coop_split(folder / "split_zhou_X.json", "train")


def test_a_cache_stays_in_its_folder_whatever_a_set_is_called(tmp_path, monkeypatch):
    from vpkit.datasets.cache import cached_images
    from vpkit.datasets.source import Source

    monkeypatch.setenv("VPKIT_CACHE", str(tmp_path / "cache"))
    source = Source(np.zeros(2, np.int64), ("a",), lambda i, size: np.zeros((size, size, 3), np.uint8))
    for name in ("../../up", "/etc/passwd", "a\0b", "folder:" + "x" * 500):
        cached_images(name, source, 8)
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / "cache" / "datasets"}


def test_grids(tmp_path):
    (tmp_path / "02_label_mapping.ipynb").write_bytes((ROOT / "notebooks" / "02_label_mapping.ipynb").read_bytes())
    grid = {"notebook": "02_label_mapping.ipynb", "parameters": {"epochs": 1}, "grid": {"seed": [0, 1]}}
    path = tmp_path / "grid.yaml"

    @settings(FUZZ, max_examples=60)
    @given(
        st.one_of(mutated(yaml.safe_dump(grid).encode()), rearranged(grid).map(lambda g: yaml.safe_dump(g).encode()))
    )
    def fuzz(data):
        path.write_bytes(data)
        allowed(lambda: read_grid(path), ValueError)

    fuzz()


def test_no_code_of_ours_unpickles_or_evaluates():
    """What torchvision unpickles itself (CIFAR's batches) is said on the page about data sets."""
    refused = {"pickle", "marshal", "shelve", "dill", "joblib"}
    for path in [*ROOT.glob("vpkit/**/*.py"), *ROOT.glob("tools/**/*.py"), *ROOT.glob("benchmarks/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(node.module or "").split(".")[0]]
            assert not refused & set(names), f"{path}: line {node.lineno}"
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                given_names = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                where = f"{path}: line {node.lineno}: {called}"
                assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"), where
                assert called != "torch.load" or given_names.get("weights_only") == "True", where
                assert called != "np.load" or given_names.get("allow_pickle", "False") == "False", where
