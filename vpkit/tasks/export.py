"""A classifier of your own images as one ONNX file: pixels in, probabilities out, for programs without PyTorch."""

import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from vpkit.files import write_atomically
from vpkit.interfaces import normalised
from vpkit.methods.baselines import LinearProbe
from vpkit.models.frozen import FrozenModel
from vpkit.tasks.task import FittedTask

__all__ = ["export_onnx"]


class _Whole(nn.Module):
    """Prompt, model and mapping, or model and linear head, as plain layers: no hooks, which a graph cannot hold."""

    mean: Tensor
    std: Tensor

    def __init__(self, task: FittedTask):
        super().__init__()
        self.classifier = task.classifier
        model = deepcopy(task.classifier.model)
        assert isinstance(model, FrozenModel)
        if isinstance(task.classifier, LinearProbe):
            model.remove_head()
        self.mean, self.std, self.network = model.mean, model.std, model.network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, s, s) in [0, 1] to probabilities (B, T)."""
        if isinstance(self.classifier, LinearProbe):
            features = self.network(normalised(images, self)).flatten(1)
            logits: Tensor = self.classifier.of_features(features)
        else:
            logits = self.classifier.mapping(self.network(normalised(self.classifier.prompt(images), self)))
        return logits.softmax(1)


def export_onnx(path: str | Path, task: FittedTask) -> Path:
    """Write prompt, model and mapping of `task` as one graph: images (B, 3, s, s) in [0, 1] to probabilities (B, T).

    The file's metadata say the side s, and the class names in the order of the probabilities. Images are read, and
    resized to s, by whoever runs it: upright, bilinear with anti-aliasing, the aspect ratio not kept.

    Raises:
        ImportError: onnx and onnxscript are not installed.
        ValueError: another ending than `.onnx`, or a torch that is too old.
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise ValueError(f"{path}: expected a file name ending in .onnx")
    if torch.__version__ < torch.torch_version.TorchVersion("2.6"):
        raise ValueError(f"torch {torch.__version__} writes no such graphs: 2.6 or newer is needed to export")
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch needs it)
    except ImportError as error:
        raise ImportError("exporting needs two more packages: pip install onnx onnxscript") from error
    side = task.settings["image_size"]
    example = torch.rand(2, 3, side, side, device=task.device)
    program = torch.onnx.export(
        _Whole(task).eval(), (example,), dynamo=True, verbose=False,
        input_names=["images"], output_names=["probabilities"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    described = {"class_names": json.dumps(task.class_names), "image_size": str(side)}
    described["settings"] = json.dumps(task.settings)
    onnx.helper.set_model_props(graph, described)
    onnx.checker.check_model(graph)
    return write_atomically(path, lambda part: part.write_bytes(graph.SerializeToString()))
