"""The student of `tiny`: a transformer with helper heads, so that every token learns from the teacher's maps."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

TAUGHT = (4, 5, 6)  # stages of EfficientNet whose maps the tokens predict


class Student(nn.Module):
    """`tiny-vit` with the heads that only training needs.

    Its first convolutions are the teacher's own and rest. A part of the patches is dropped, which makes a step faster
    (Li et al. 2023); those that stay predict, at their place, what three later stages of the teacher see there: many
    answers to each picture where its feature is one.
    """

    def __init__(self, visual: nn.Module, trunk: nn.Module):
        super().__init__()
        self.visual = visual
        visual.conv1[:-1].requires_grad_(False)
        width, planes = visual.positional_embedding.shape[1], [trunk.blocks[s][-1].bn3.num_features for s in TAUGHT]
        self.helpers = nn.ModuleList(nn.Linear(width, channels) for channels in planes)
        self.scales = nn.ModuleList(nn.BatchNorm2d(channels, affine=False) for channels in planes)

    def train(self, mode: bool = True):
        super().train(mode)
        self.visual.conv1[:-1].eval()
        return self

    def maps_of(self, trunk: nn.Module, images: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        """What the shared convolutions give (B, c, s/8, s/8), the maps to be predicted, and the pooled features."""
        x, first, maps = trunk.bn1(trunk.conv_stem(images)), None, []
        for number, stage in enumerate(trunk.blocks):
            x = stage(x)
            if number == len(self.visual.conv1) - 4:  # all but the stem, its norm and the last projection
                first = x
            if number in TAUGHT:
                maps.append(x)
        return first, maps, trunk.forward_head(trunk.bn2(trunk.conv_head(x)))

    def forward(self, first: Tensor, maps: list[Tensor], dropped: float) -> tuple[Tensor, Tensor]:
        """Unit features (B, D) and the mean squared error of the helpers, in units of the maps' variance.

        Args:
            first: (B, c, s/8, s/8) what the shared convolutions give.
            maps: the teacher's maps of the stages TAUGHT.
            dropped: share of the patches that is left out.
        """
        visual = self.visual
        x = visual.conv1[-1](first)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(x), 1, -1).to(x.dtype), x], 1) + visual.positional_embedding
        count = round(side * side * (1 - dropped))
        kept = torch.rand(len(x), side * side).argsort(1)[:, :count]
        rows = torch.arange(len(x))[:, None]
        x = visual.ln_pre(torch.cat([x[:, :1], x[rows, 1 + kept]], 1))
        error = 0.0
        for number, block in enumerate(visual.transformer.resblocks):
            x = block(x)
            if number < len(maps):
                wanted = interpolate(self.scales[number](maps[number].float()), (side, side), mode="nearest")
                wanted = wanted.flatten(2).transpose(1, 2)[rows, kept]
                error = error + (self.helpers[number](x[:, 1:]).float() - wanted).square().mean()
        return normalize((visual.ln_post(x[:, 0]) @ visual.proj).float(), dim=1), error / len(maps)
