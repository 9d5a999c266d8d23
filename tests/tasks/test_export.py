"""An exported graph gives what PyTorch gives."""

import json

import numpy as np
import pytest
import torch

import vpkit
from vpkit.tasks import fit_task
from vpkit.tasks.export import export_onnx
from vpkit.tasks.files import load_task, save_task

pytestmark = pytest.mark.skipif(
    torch.__version__ < torch.torch_version.TorchVersion("2.6"), reason="torch writes no graphs before 2.6"
)
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def splits():
    return [vpkit.load_dataset("digits", split, size=112, subset=40) for split in ("train", "val")]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"method": "GDA"},
        {"method": "linear probe"},
        {"mapping": "ILM"},
        {"mapping": "BLM+", "prompt": "frame"},
        {"model": "tiny", "method": "zero-shot"},
        {"model": "tiny", "method": "CoOp"},
        {"model": "tiny", "method": "LoGoPrompt"},
        {"model": "tiny-vit", "method": "DPT"},
        {"model": "tiny-vit", "mapping": "ILM"},
    ],
    ids=lambda options: " ".join(options.values()),
)
def test_an_exported_graph_equals_pytorch(options, splits, tmp_path):
    task = fit_task(*splits, **{"canvas_size": None, "epochs": 1} | options)
    save_task(tmp_path / "p.safetensors", task)
    task, _ = load_task(tmp_path / "p.safetensors")
    path = export_onnx(tmp_path / "model.onnx", task)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    side = task.settings["image_size"]
    for count in (1, 5):
        images = task.sized(splits[1]).images[:count].float() / 255
        with torch.no_grad():
            expected = task.classifier(images).softmax(1).numpy()
        (found,) = session.run(None, {"images": images.numpy()})
        assert np.abs(found - expected).max() < 1e-4
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["class_names"]) == list(task.class_names)
    assert int(described["image_size"]) == side


def test_what_cannot_be_exported_is_said(splits, tmp_path):
    task = fit_task(*splits, method="GDA")
    with pytest.raises(ValueError, match=r"ending in \.onnx"):
        export_onnx(tmp_path / "model.pt", task)
