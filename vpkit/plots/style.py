"""One look and one colour a method for every figure of the book."""

from typing import Any

import matplotlib.pyplot as plt
import seaborn as sns
from torch import Tensor, uint8

# One colour a method throughout the book (Okabe and Ito's colour-blind safe set).
METHOD_COLORS = {
    "unprompted": "#999999",
    "prompt": "#0072B2",
    "linear probe": "#000000",
    "zero-shot": "#999999",
    "VP+TP": "#0072B2",
    "VP+TP+LM": "#D55E00",
    "TP+LM": "#E69F00",
    "padding": "#0072B2",
    "fixed patch": "#E69F00",
    "random patch": "#009E73",
    "one pixel": "#CC79A7",
    "RLM": "#56B4E9",
    "FLM": "#D55E00",
    "FLM soft": "#E69F00",
    "ILM": "#0072B2",
    "ILM from training": "#7FB8DA",
    "ILM soft": "#009E73",
    "ILM soft + Hungarian": "#CC79A7",
    "BLM": "#8C6D31",
    "BLM+": "#5F4B8B",
    "linear mapping": "#44AA99",
    "full fine-tuning": "#555555",
    "CoOp": "#E69F00",
    "CoOp, class-specific": "#F0C96B",
    "CoCoOp": "#B98A2F",
    "Tip-Adapter": "#7FB8DA",
    "Tip-Adapter-F": "#5F4B8B",
    "LoGoPrompt": "#D55E00",
    "LoGoPrompt, shared": "#8E2D00",
    "LoGoPrompt, name not pasted": "#E8A07A",
    "LoGoPrompt, first stage": "#44AA99",
    "LoGoPrompt, two stages": "#009E73",
    "LoGoPrompt tunable": "#CC79A7",
    "LoGoPrompt + adapter": "#8C6D31",
    "names as images": "#56B4E9",
    "names pasted": "#0072B2",
    "VPT shallow": "#8FD0B5",
    "VPT": "#009E73",
    "VLP": "#56B4E9",
    "DPT": "#CC79A7",
    "linear map": "#555555",
    "linear map, prompted": "#44AA99",
    "SPSA-GC": "#0072B2",
    "CMA-ES": "#E69F00",
}
CHANCE: dict[str, Any] = {"color": "#999999", "linestyle": ":", "linewidth": 1}


def colors_of(methods) -> dict[str, str]:
    """Each method's colour, grey for those the book does not know."""
    return {method: METHOD_COLORS.get(method, "#777777") for method in methods}


def set_style() -> None:
    """The book's look: small figures, light grid."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.8)
    plt.rcParams.update({"figure.figsize": (3.6, 2.6), "figure.dpi": 110, "savefig.bbox": "tight"})


def displayable(image: Tensor):
    """(3, h, w), uint8 or floats in [0, 1] (values beyond are clipped), as matplotlib wants it."""
    image = image.detach().cpu()
    image = image / 255 if image.dtype == uint8 else image.clamp(0, 1)
    return image.permute(1, 2, 0).numpy()


def finished(figure):
    """Shown once, by the cell that asks for it, and not by matplotlib as well."""
    plt.close(figure)
    return figure
