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
from vpkit.methods.dpt import DualPromptClassifier
from vpkit.methods.logoprompt import LoGoPromptClassifier
from vpkit.methods.vp import PromptedClassifier
from vpkit.models.clip import FrozenCLIP, clip_logits
from vpkit.models.frozen import FrozenModel
from vpkit.tasks.on_clip import OnImages
from vpkit.tasks.task import FittedTask

__all__ = ["export_onnx"]


def _graph_of(task: FittedTask) -> nn.Module:
    """(B, 3, s, s) in [0, 1] to logits (B, T), as plain layers: no hooks and no caches, which a graph cannot hold."""
    classifier = task.classifier
    if isinstance(classifier, PromptedClassifier):
        assert isinstance(classifier.model, FrozenModel)
        return nn.Sequential(classifier.prompt, _Network(classifier.model), classifier.mapping)
    if isinstance(classifier, LinearProbe):
        model = deepcopy(classifier.model)
        model.remove_head()
        return nn.Sequential(_Network(model), _Linear(classifier.weight, classifier.bias, classifier.unit))
    if isinstance(classifier, DualPromptClassifier):
        return _DPT(classifier)
    if isinstance(classifier.classifier, LoGoPromptClassifier):
        return _LoGoPrompt(classifier)
    with torch.no_grad():  # CoOp: what was learned is a text feature a class
        weight = classifier.clip.logit_scale * classifier.classifier.prompt()
    return nn.Sequential(_Network(classifier.clip), _Linear(weight, weight.new_zeros(len(weight)), unit=True))


class _Network(nn.Module):
    """A frozen model's network behind its normalisation; of a CLIP the image tower."""

    mean: Tensor
    std: Tensor

    def __init__(self, model: FrozenModel | FrozenCLIP):
        super().__init__()
        self.network = model.image_tower if isinstance(model, FrozenCLIP) else model.network
        self.register_buffer("mean", model.mean)
        self.register_buffer("std", model.std)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(normalised(images, self))


class _DPT(nn.Module):
    """`DualPromptClassifier` with its text computed once."""

    def __init__(self, classifier: DualPromptClassifier):
        super().__init__()
        assert classifier.tokens is not None
        assert classifier.text is not None
        self.classifier, self.tokens = classifier, classifier.tokens
        with torch.no_grad():
            self.register_buffer("raw", classifier.text(unit=False))

    def forward(self, images: Tensor) -> Tensor:
        raw = self.get_buffer("raw")
        chosen = self.classifier.choose(self.classifier.clip.encode_image(images))  # (B, K)
        features = self.tokens(images, raw[chosen]).features
        return clip_logits(features, normalize(raw, dim=1), self.classifier.clip.logit_scale)


class _LoGoPrompt(nn.Module):
    """`LoGoPromptClassifier`: each image again with the name of each likely class on it."""

    def __init__(self, classifier: OnImages):
        super().__init__()
        inner = classifier.classifier
        assert isinstance(inner, LoGoPromptClassifier)
        self.clip, self.count = classifier.clip, inner.num_candidates
        with torch.no_grad():
            self.register_buffer("text", inner.prompt())  # (T, D)
        self.register_buffer("strips", classifier.strips.float() / 255)  # (T, 3, h, s)

    def forward(self, images: Tensor) -> Tensor:
        text, strips = self.get_buffer("text"), self.get_buffer("strips")
        plain = self._log_p(images, text)
        top = plain.topk(min(self.count, len(text)), dim=1)  # (B, K)
        count, height = top.indices.shape[1], strips.shape[2]
        upper = images[:, None, :, :-height].expand(-1, count, -1, -1, -1)
        named = torch.cat([upper, strips[top.indices]], 3).flatten(0, 1)  # (B K, 3, s, s)
        found = self._log_p(named, text).unflatten(0, (-1, count)).gather(2, top.indices[..., None])[..., 0]
        return plain.scatter(1, top.indices, torch.maximum(top.values, found))

    def _log_p(self, images: Tensor, text: Tensor) -> Tensor:
        return clip_logits(self.clip.encode_image(images), text, self.clip.logit_scale).log_softmax(1)


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
        nn.Sequential(_graph_of(task), nn.Softmax(1)).eval(), (example,), dynamo=True, verbose=False,
        input_names=["images"], output_names=["probabilities"], dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    assert program is not None
    graph = program.model_proto
    described = {"class_names": json.dumps(task.class_names), "image_size": str(side)}
    described["settings"] = json.dumps(task.settings)
    onnx.helper.set_model_props(graph, described)
    onnx.checker.check_model(graph)
    return write_atomically(path, lambda part: part.write_bytes(graph.SerializeToString()))
