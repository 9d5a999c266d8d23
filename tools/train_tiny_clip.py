"""Train `tiny` and `tiny-vit`, the CLIP models that ship with vpkit (make tiny-clip).

    python tools/train_tiny_clip.py tower  --data DIR   # image tower, as a classifier over every name and style
    python tools/train_tiny_clip.py text                # text tower, on the class vectors of the image tower
    python tools/train_tiny_clip.py vit    --data DIR   # tiny-vit, distilled from tiny
    python tools/train_tiny_clip.py export              # fp16 safetensors into vpkit/data/clip/

DIR holds cifar10/train/<class>/*; the rest comes from Debian packages: fonts-noto-color-emoji, fonts-symbola,
fonts-ancient-scripts, fonts-noto-core, fonts-freefont-ttf, fonts-unifont, openclipart-png, and any text fonts (about 230
files were used). A stage that is interrupted goes on from its last checkpoint in --folder.

Why a classifier first: a contrastive batch on two cores holds some hundred names; a softmax over the table of all
class vectors shows every step every negative. The text tower then learns to produce those vectors from sentences.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

sys.path.insert(0, str(Path(__file__).parent))

from tiny_clip.pictures import STYLE_NAMES, STYLES, compose, style_of
from tiny_clip.prepare import prepare

EMBED, SIDE = 256, 96
TOWER = {"layers": (2, 2, 2, 2), "output_dim": EMBED, "heads": 12, "image_size": SIDE, "width": 24}
STYLE_SHARE = 0.5  # length of a style vector beside a class vector of length 1


class Tower(nn.Module):
    """Image tower with a unit vector for every name and every style."""

    def __init__(self, num_names: int):
        from open_clip.modified_resnet import ModifiedResNet

        super().__init__()
        self.visual = ModifiedResNet(**TOWER)
        self.names = nn.Parameter(torch.randn(num_names, EMBED))
        self.styles = nn.Parameter(torch.randn(len(STYLES), EMBED))
        self.log_scale = nn.Parameter(torch.tensor([2.7, 2.7]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[0, 1] pictures to logits over names and over styles."""
        features = normalize(self.visual((images - 0.5) / 0.25).float(), dim=1)
        scale = self.log_scale.clamp(max=4.0).exp()
        return scale[0] * features @ normalize(self.names).T, scale[1] * features @ normalize(self.styles).T


def train_tower(args) -> None:
    banks, names, reading = prepare(args.data, args.folder)
    torch.manual_seed(args.seed)
    tower = Tower(len(names)).to(memory_format=torch.channels_last)
    decayed = [p for p in tower.parameters() if p.ndim > 1]
    plain = [p for p in tower.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0}], 1e-3
    )
    averaged = AveragedModel(tower, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    path, step = args.folder / "tower.pt", 0
    if path.exists():
        kept = torch.load(path, weights_only=True)
        tower.load_state_dict(kept["tower"]), optimizer.load_state_dict(kept["optimizer"])
        averaged.load_state_dict(kept["averaged"])
        step = kept["step"]
        torch.manual_seed(args.seed + step)
    easy = torch.zeros(len(names), dtype=torch.bool)
    easy[[names.index(name) for name in reading[:110]]] = True
    started, seen = time.time(), step
    total = loss_sum = 0.0
    while step < args.steps:
        progress = step / args.steps
        rate = args.lr * min(1, step / 300) * (0.5 * (1 + torch.cos(torch.tensor(progress * torch.pi))).item() + 0.005)
        for group in optimizer.param_groups:
            group["lr"] = rate
        # Easy to hard: first few words and no strips, then the whole reading list, small and on pictures.
        early = progress < 0.15
        images, concepts, styles = compose(
            banks, args.batch, easy if early else None, strips=0.0 if early else 0.25, styled=0.25 if early else 0.45
        )
        with torch.autocast("cpu", torch.bfloat16):
            by_name, by_style = tower(images.to(memory_format=torch.channels_last))
        loss = 0.5 * (cross_entropy(by_name, concepts[:, 0]) + cross_entropy(by_name, concepts[:, 1]))
        loss = loss + 0.3 * cross_entropy(by_style, styles)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(tower)
        step += 1
        loss_sum, total = loss_sum + loss.item(), total + 1
        if step % 100 == 0 or step == args.steps:
            speed = (step - seen) * args.batch / (time.time() - started)
            hit = (by_name.argmax(1)[:, None] == concepts).any(1).float().mean()
            print(f"step {step} of {args.steps}  loss {loss_sum / total:.3f}  hit {hit:.0%}  {speed:.0f}/s", flush=True)
            total = loss_sum = 0.0
        if step % 500 == 0 or step == args.steps:
            state = {"tower": tower.state_dict(), "averaged": averaged.state_dict(), "step": step}
            torch.save(state | {"optimizer": optimizer.state_dict()}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["tower", "text", "vit", "export"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("_build/tiny_clip"), help="banks and checkpoints")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    {"tower": train_tower}[args.stage](args)
