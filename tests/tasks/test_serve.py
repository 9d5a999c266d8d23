"""A fitted task behind HTTP: what it answers, what it refuses, and that a prompt can be learned through it."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from photos import coloured_photos
from served import running

import vpkit
from vpkit import PromptedClassifier
from vpkit.datasets.batches import resized
from vpkit.datasets.source import read_image
from vpkit.mappings import identity_mapping
from vpkit.methods.black_box import SPSAGC, ScoresOnly, fit_by_scores, over_http
from vpkit.prompts import CoarsePrompt
from vpkit.tasks import fit_task
from vpkit.tasks import serve as module
from vpkit.tasks.cli import app as command
from vpkit.tasks.serve import check_exposed, service

NAMES = ("sky", "tree", "wall")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return coloured_photos(tmp_path_factory.mktemp("photos"), NAMES)


@pytest.fixture(scope="module")
def task(folder):
    train, val = (vpkit.load_dataset(f"folder:{folder}", split, size=160) for split in ("train", "val"))
    return fit_task(train, val, "tiny-vit", method="GDA")


@pytest.fixture(scope="module")
def address(task):
    with running(service(task)) as address:
        yield address


def sent(address, content, **options):
    return httpx.post(f"{address}/predict", files={"image": ("image", content)}, timeout=60, **options)


def test_it_answers_as_predict_does(address, task, folder):
    paths = sorted(folder.glob("*/1*.png"))
    here = vpkit.tasks.predict_images(task, paths)
    for path, expected in zip(paths, here.itertuples(), strict=True):
        answer = sent(address, path.read_bytes()).json()
        assert answer["predicted"] == expected.predicted
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-3)  # alone and in a batch
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    health = httpx.get(f"{address}/health").json()
    assert (health["status"], tuple(health["class_names"])) == ("ok", NAMES)
    described = httpx.get(f"{address}/openapi.json").json()
    assert set(described["paths"]) == {"/health", "/predict"}
    assert "swagger" in httpx.get(f"{address}/docs").text.lower()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "cannot be read"),
        (b"not an image", "cannot be read"),
        ("cut", "cannot be read"),
        ("huge", "pixels: expected at most"),
    ],
)
def test_a_bad_image_gets_422_and_a_reason(address, folder, content, reason, monkeypatch):
    if content == "cut":
        content = (folder / "sky" / "1.png").read_bytes()[:200]
    if content == "huge":
        monkeypatch.setattr(module, "MOST_PIXELS", 1000)
        content = (folder / "sky" / "1.png").read_bytes()
    answer = sent(address, content)
    assert answer.status_code == 422
    assert reason in str(answer.json()["detail"])
    assert "Traceback" not in answer.text
    assert httpx.get(f"{address}/health").json()["status"] == "ok"


def test_what_is_no_upload_or_too_large_is_refused(address):
    assert httpx.post(f"{address}/predict", json={}).status_code == 422
    assert httpx.get(f"{address}/predict").status_code == 405
    too_large = sent(address, bytes(10_000_001))
    assert too_large.status_code == 413
    assert "at most 10,000,000 bytes" in too_large.json()["detail"]
    endless = httpx.post(f"{address}/predict", content=iter([b"a" * 10]))  # chunked: its length is not told
    assert endless.status_code == 411


def test_a_hundred_requests_at_once_share_batches(address, folder, task, monkeypatch):
    asked, real = [], module.probabilities_of

    def slow(task, images):
        asked.append(len(images))
        time.sleep(0.2)
        return real(task, images)

    monkeypatch.setattr(module, "probabilities_of", slow)
    paths = [sorted(folder.glob("*/*.png"))[i % 36] for i in range(100)]
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda path: sent(address, path.read_bytes()).json()["predicted"], paths))
    assert answers == vpkit.tasks.predict_images(task, paths).predicted.tolist()  # each its own
    assert sum(asked) >= 100
    assert len(asked) < 50
    assert max(asked) <= 64


def test_a_service_that_fails_says_so_and_goes_on(address, folder, monkeypatch):
    content = (folder / "sky" / "1.png").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(module, "probabilities_of", lambda *_: 1 / 0)
        assert sent(address, content).status_code == 500
    assert sent(address, content).status_code == 200


def test_a_token_is_wanted_where_others_can_come_in(task):
    from starlette.testclient import TestClient

    with TestClient(service(task, token="secret")) as client:
        assert client.get("/health").status_code == 401
        assert client.get("/health", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.get("/health", headers={"Authorization": "Bearer secret"}).status_code == 200
    check_exposed("127.0.0.1", None)
    check_exposed("0.0.0.0", "secret")
    with pytest.raises(ValueError, match=r"--host 0\.0\.0\.0 can be reached from other machines: give --token"):
        check_exposed("0.0.0.0", None)


def test_the_command_refuses_before_it_listens(task, tmp_path):
    from typer.testing import CliRunner

    vpkit.tasks.save_task(tmp_path / "task.safetensors", task)
    for arguments, reason in (
        ([str(tmp_path / "task.safetensors"), "--host", "0.0.0.0"], "give --token"),
        ([str(tmp_path / "other.safetensors")], "other.safetensors"),
    ):
        found = CliRunner().invoke(command, ["serve", *arguments])
        assert found.exit_code == 1
        assert reason in found.output


def test_a_prompt_is_learned_through_the_wire(task, folder):
    """The same numbers as beside the model: the interface is one, whatever lies behind it."""

    def one_by_one(images):  # alone and in a batch answers differ in the fourth digit, and that is divided by a step
        return torch.cat([task.classifier(as_the_service(image, task)) for image in images.split(1)])

    train = vpkit.load_dataset(f"folder:{folder}", "train", size=160, subset=6)
    found = []
    with running(service(task, batch_size=1)) as address:
        for ask in (over_http(address), one_by_one):
            torch.manual_seed(0)
            interface = ScoresOnly(ask, class_names=NAMES, budget=60)
            classifier = PromptedClassifier(CoarsePrompt(160, 2), interface, identity_mapping(3))
            optimizer = SPSAGC(classifier.prompt.parameters(), lr=0.05, draws=2, spread=0.05)
            fit_by_scores(classifier, train.batches(6), optimizer)
            assert interface.sent == 60  # two steps of 24 and half a third, which was taken back
            found.append(classifier.prompt.grid.detach())
    assert found[0].abs().max() > 0
    assert torch.allclose(*found, atol=0.01)  # answers differ in the sixth digit, and are divided by a small step


def as_the_service(x, task):
    """As the service brings an image to the side that the classifier takes."""
    return resized(x.mul(255).round().byte(), task.settings["image_size"]).float() / 255


def test_a_refusal_is_an_error_with_its_reason(address, monkeypatch):
    monkeypatch.setattr(module, "MOST_PIXELS", 10)
    with pytest.raises(ValueError, match=r"answers 422: .*pixels: expected at most"):
        over_http(address)(torch.rand(1, 3, 8, 8))


def test_an_image_from_a_buffer_is_read_as_from_a_file(folder):
    path = folder / "sky" / "1.png"
    assert np.array_equal(module.pixels_of(path.read_bytes(), 20), read_image(path, 20))
