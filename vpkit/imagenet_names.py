"""The class names of ImageNet-1k, which models and data sets share."""


def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 ImageNet-1k display names in class-index order, as torchvision lists them."""
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
