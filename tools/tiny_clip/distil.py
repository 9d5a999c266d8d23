"""The student of `tiny`: a transformer with helper heads, so that every token learns from the teacher's maps."""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize


class Student(nn.Module):
    """`tiny-vit` with the heads that only training needs.

    Its first convolutions are the teacher's own and rest. A part of the patches is dropped, which makes a step faster
    (Li et al. 2023); those that stay predict, at their place, what the teacher's second, third and fourth stage see
    there: many answers to each picture where its feature is one.
    """

    def __init__(self, visual: nn.Module, teacher: nn.Module):
        super().__init__()
        self.visual = visual
        own, first = visual.conv1, teacher_stages(teacher)[0]
        own[:-1].load_state_dict(first.state_dict())
        own[:-1].requires_grad_(False)
        width, planes = visual.positional_embedding.shape[1], teacher.layer1[0].conv1.out_channels
        self.helpers = nn.ModuleList(nn.Linear(width, 4 * planes * 2**stage) for stage in (1, 2, 3))
        self.scales = nn.ModuleList(nn.BatchNorm2d(4 * planes * 2**stage, affine=False) for stage in (1, 2, 3))

    def forward(self, first: Tensor, maps: list[Tensor], dropped: float) -> tuple[Tensor, Tensor]:
        """Unit features (B, D) and the mean squared error of the helpers, in units of the maps' variance.

        Args:
            first: (B, c, s/4, s/4) what the shared convolutions give.
            maps: the teacher's maps of stages 2, 3 and 4.
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


def teacher_stages(resnet: nn.Module) -> list[nn.Module]:
    """The convolutions both share, then stages 2, 3 and 4 of a `ModifiedResNet`."""
    convolutions = [getattr(resnet, f"{kind}{i}") for i in (1, 2, 3) for kind in ("conv", "bn", "act")]
    first = nn.Sequential(*convolutions, resnet.avgpool, resnet.layer1)
    return [first, resnet.layer2, resnet.layer3, resnet.layer4]
