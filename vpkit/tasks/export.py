"""A classifier of your own images as one ONNX file: pixels in, probabilities out, for programs without PyTorch."""

import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from vpkit.files import write_atomically
from vpkit.interfaces import normalised
from vpkit.methods.baselines import LinearProbe
from vpkit.methods.coop import TextPromptedClassifier
from vpkit.methods.vp import PromptedClassifier
from vpkit.models.frozen import FrozenModel
from vpkit.tasks.on_clip import OnImages
from vpkit.tasks.task import FittedTask

__all__ = ["export_onnx"]


class _Whole(nn.Module):
    """Prompt, model and mapping, or model and linear head, as plain layers: no hooks, which a graph cannot hold."""

    mean: Tensor
    std: Tensor
    prompt: nn.Module
    head: nn.Module
    network: nn.Module

    def __init__(self, task: FittedTask):
        super().__init__()
        classifier = task.classifier
        if isinstance(classifier, OnImages) and isinstance(classifier.classifier, TextPromptedClassifier):
            clip, prompt = classifier.clip, classifier.classifier.prompt
            self.mean, self.std, self.network = clip.mean, clip.std, clip.image_tower
            with torch.no_grad():
                weight = clip.logit_scale * prompt()  # CoOp: what was learned is a text feature a class
            self.prompt, self.head = nn.Identity(), _Linear(weight, weight.new_zeros(len(weight)), unit=True)
        elif isinstance(classifier, PromptedClassifier | LinearProbe):
            model = deepcopy(classifier.model)
            assert isinstance(model, FrozenModel)
            if isinstance(classifier, LinearProbe):
                model.remove_head()
                self.prompt = nn.Identity()
                self.head = _Linear(classifier.weight, classifier.bias, classifier.unit)
            else:
                self.prompt, self.head = classifier.prompt, classifier.mapping
            self.mean, self.std, self.network = model.mean, model.std, model.network
        else:
            raise ValueError(
                f"{task.name} looks at each image again for the classes it has found likely, which is no fixed graph: "
                "export another method, or run it with vpkit"
            )

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, s, s) in [0, 1] to probabilities (B, T)."""
        return self.head(self.network(normalised(self.prompt(images), self))).softmax(1)


class _Linear(nn.Module):
    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, unit: bool):
        super().__init__()
        self.unit = unit
        self.register_buffer("weight", weight.detach())
        self.register_buffer("bias", bias.detach())

    def forward(self, features: Tensor) -> Tensor:
        features = features.flatten(1)
        return linear(normalize(features, dim=1) if self.unit else features, self.weight, self.bias)


def export_onnx(path: str | Path, task: FittedTask) -> Path:
    """Write prompt, model and mapping of `task` as one graph: images (B, 3, s, s) in [0, 1] to probabilities (B, T).

    The file's metadata say the side s, and the class names in the order of the probabilities. Images are read, and
    resized to s, by whoever runs it: upright, bilinear with anti-aliasing, the aspect ratio not kept.

    Raises:
        ImportError: onnx and onnxscript are not installed.
        ValueError: another ending than `.onnx`, a torch that is too old, or LoGoPrompt or DPT: they are no fixed graph.
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
