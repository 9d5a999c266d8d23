"""What is trained: a classifier gives target logits, and its own loss, so that the training loop needs no other."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from vpkit.models.frozen import HoldsFrozen, frozen


class PromptedClassifier(HoldsFrozen):
    """Prompt, frozen model, label mapping: (B, 3, h, w) images in [0, 1] to (B, T) target logits.

    `mapping` may be replaced between epochs (`classifier.mapping = ...`), which is all that ILM-VP adds.

    Args:
        prompt: image to prompted image; `nn.Identity()` for an unprompted control.
        model: prompted image to (B, S) source logits. It is never trained: what still takes gradients or is in
            training mode, such as a network of your own, is copied, and the copy frozen.
        mapping: (B, S) to (B, T).

    Raises:
        ValueError: a mapping to source classes that the model does not have.

    Explained in chapter 1.
    """

    model: nn.Module

    def __init__(self, prompt: nn.Module, model: nn.Module, mapping: nn.Module):
        super().__init__()
        self.hold("model", frozen(model))
        self.prompt, self.mapping = prompt, mapping
        index, names = getattr(mapping, "index", None), getattr(model, "class_names", None)
        if index is not None and names is not None and int(index.max()) >= len(names):
            raise ValueError(
                f"the mapping names source class {int(index.max())}, the model has {len(names)} (0..{len(names) - 1}): "
                "make the mapping for this model"
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.mapping(self.model(self.prompt(images)))

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the T mapped logits (the other source classes are left out), and those logits."""
        logits = self.map_logits(self.model(self.prompt(images)), labels)  # (B, S) to (B, T)
        return cross_entropy(logits, labels), logits

    def map_logits(self, source_logits: Tensor, labels: Tensor) -> Tensor:
        """(B, S) to (B, T), within `loss`; a subclass may look at both (`ilm_vp.CountingClassifier`)."""
        return self.mapping(source_logits)


def count_parameters(module: nn.Module) -> int:
    """How many numbers are learned in `module`: everything that takes a gradient."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
