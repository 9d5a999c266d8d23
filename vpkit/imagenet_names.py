"""The class names of ImageNet-1k, which models and data sets share."""


def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 ImageNet-1k display names in class-index order, as torchvision lists them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def clip_imagenet_names() -> tuple[str, ...]:
    """The 1000 names that CLIP, CoOp and what follows ask with ("crane bird", "construction crane"), each once.

    Two of them name two classes there, "missile" and "sunglasses"; of these the one that torchvision calls otherwise
    has its name from torchvision.
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    found: list[str] = []
    for name, other in zip(IMAGENET_CLASSNAMES, imagenet_class_names(), strict=True):
        alone = IMAGENET_CLASSNAMES.count(name) == 1 or name == other
        found.append(name if alone else other)
    return tuple(found)
