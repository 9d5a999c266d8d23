"""Train `tiny` and `tiny-vit`, the CLIP models that ship with vpkit.

    python tools/train_tiny_clip.py tower --data DIR   # image tower, as a classifier over every name and style
    python tools/train_tiny_clip.py text               # text tower, on the class vectors of the image tower
    python tools/train_tiny_clip.py vit --data DIR     # tiny-vit, distilled from tiny
    python tools/train_tiny_clip.py export             # fp16 safetensors into vpkit/data/clip/

DIR holds cifar10/train/<class>/*; the rest comes from Debian packages: fonts-noto-color-emoji, fonts-symbola,
fonts-ancient-scripts, fonts-noto-core, fonts-freefont-ttf, fonts-unifont, openclipart-png, and any text fonts (about
230 files were used). A stage that is interrupted goes on from its last checkpoint in --folder.

Why a classifier first: a contrastive batch on two cores holds some hundred names; a softmax over the table of all
class vectors shows every step every negative. The text tower then learns to produce those vectors from sentences.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from tiny_clip.pictures import STYLE_NAMES, STYLES, compose, style_of
from tiny_clip.prepare import prepare
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from vpkit import FrozenCLIP, clip_templates, fill_templates
from vpkit.own_clip import convolutional_stem, save_own
from vpkit.session import keep_freed_memory

EMBED, SIDE = 256, 96
MEAN, STD = (0.5,) * 3, (0.25,) * 3
TEXT = {"context_length": 48, "vocab_size": 49408, "width": 160, "heads": 5, "layers": 3}
CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {"layers": [2, 2, 2, 2], "width": 24, "head_width": 64, "image_size": SIDE, "patch_size": None},
    "text_cfg": TEXT,
}
STEM = {"width": 160, "patch_size": 8}
VIT_CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {"layers": 5, "width": 160, "head_width": 32, "image_size": SIDE, "patch_size": 8},
    "text_cfg": TEXT,
}
STYLE_SHARE = 0.5  # length of a style vector beside a class vector of length 1
OTHER_TEMPLATES = ("{}", "a {}", "the {}", "{}.", "an icon of a {}.", "the word {}.", "This is a photo of a {}")
UNSEEN = tuple("0123456789")


class Tower(nn.Module):
    """Image tower with a unit vector for every name and every style."""

    def __init__(self, num_names: int):
        import open_clip

        super().__init__()
        self.visual = open_clip.CLIP(**CONFIG).visual
        self.names = nn.Parameter(torch.randn(num_names, EMBED))
        self.styles = nn.Parameter(torch.randn(len(STYLES), EMBED))
        self.log_scale = nn.Parameter(torch.tensor([2.7, 2.7]))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[0, 1] pictures to logits over names and over styles."""
        features = normalize(self.visual((images - MEAN[0]) / STD[0]).float(), dim=1)
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
        rate = args.lr * min(1, step / 300) * (0.5 * (1 + math.cos(math.pi * progress)) + 0.005)
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


def train_text(args) -> None:
    """The text tower learns to say, for every sentence, the class vector plus the vector of the style it asks for."""
    import open_clip

    tower, names = load_tower(args.folder)
    torch.manual_seed(args.seed)
    model = open_clip.CLIP(**CONFIG)
    class_vectors = normalize(tower.names.detach())
    # Names without a picture still need sentences of their own: far from each other and from everything seen.
    unseen = normalize(torch.randn(len(UNSEEN), EMBED, generator=torch.Generator().manual_seed(1)))
    names, vectors = [*names, *UNSEEN], torch.cat([class_vectors, unseen])
    style_vectors = STYLE_SHARE * normalize(tower.styles.detach())
    style_vectors[0] = 0  # plain templates ask for nothing
    templates = [*clip_templates(), *clip_templates()[:1] * 9, *OTHER_TEMPLATES]
    asked = torch.tensor([STYLE_NAMES.index(style_of(template)) for template in templates])
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    text_side = [p for name, p in model.named_parameters() if not name.startswith(("visual.", "logit_scale"))]
    optimizer = torch.optim.AdamW(text_side, args.lr, weight_decay=0.01)
    started = time.time()
    for step in range(args.steps):
        rate = args.lr * min(1, step / 100) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        who, how = torch.randint(len(names), (args.batch,)), torch.randint(len(templates), (args.batch,))
        tokens = tokenizer([templates[j].format(names[k]) for j, k in zip(how.tolist(), who.tolist(), strict=True)])
        clip = FrozenCLIP.encode_embedded  # the very function that will encode sentences
        with torch.autocast("cpu", torch.bfloat16):
            features = clip(_Bare(model), model.token_embedding(tokens), tokens.argmax(1))
        target = normalize(vectors[who] + style_vectors[asked[how]])
        loss = 1 - (features * target).sum(1).mean() + 0.1 * cross_entropy(20 * features @ vectors.T, who)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            right = (features @ vectors.T).argmax(1).eq(who).float().mean()
            cosine = (features * target).sum(1).mean()
            print(f"step {step + 1}  cosine {cosine:.3f}  right {right:.1%}  {time.time() - started:.0f} s", flush=True)
    sentences = fill_templates([*clip_templates(), *OTHER_TEMPLATES], names)
    met = torch.cat([tokenizer(sentences[i : i + 4096]).unique() for i in range(0, len(sentences), 4096)]).unique()
    model.visual.load_state_dict(tower.visual.state_dict())
    with torch.no_grad():
        model.logit_scale.fill_(tower.log_scale[0].clamp(max=4.0))
    torch.save({"model": model.state_dict(), "rows": met}, args.folder / "tiny.pt")


class _Bare:
    """What `encode_embedded` reads of a FrozenCLIP, for a network that still trains."""

    def __init__(self, network: nn.Module):
        self.network = network


def load_tower(folder: Path) -> tuple[Tower, list[str]]:
    """The averaged image tower and its names."""
    names = torch.load(folder / "banks.pt", weights_only=True, mmap=True)["names"]
    tower = Tower(len(names))
    averaged = torch.load(folder / "tower.pt", weights_only=True)["averaged"]
    tower.load_state_dict({k.removeprefix("module."): v for k, v in averaged.items() if k.startswith("module.")})
    return tower.eval(), names


def train_vit(args) -> None:
    """`tiny-vit` learns to give the features of `tiny` on pictures composed as before."""
    import open_clip

    banks, *_ = prepare(args.data, args.folder)
    tower, _ = load_tower(args.folder)
    teacher = tower.visual.to(memory_format=torch.channels_last)
    torch.manual_seed(args.seed)
    model = open_clip.CLIP(**VIT_CONFIG)
    model.visual.conv1 = convolutional_stem(**STEM)
    student, path, step = model.visual, args.folder / "vit.pt", 0
    optimizer = torch.optim.AdamW(student.parameters(), args.lr, weight_decay=0.05)
    averaged = AveragedModel(student, multi_avg_fn=get_ema_multi_avg_fn(0.999), use_buffers=True)
    if path.exists():
        kept = torch.load(path, weights_only=True)
        student.load_state_dict(kept["student"]), optimizer.load_state_dict(kept["optimizer"])
        averaged.load_state_dict(kept["averaged"])
        step = kept["step"]
    torch.manual_seed(args.seed + step)
    started, first, drift = time.time(), step, 0.0
    while step < args.steps:
        rate = args.lr * min(1, step / 300) * (0.5 * (1 + math.cos(math.pi * step / args.steps)) + 0.005)
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, *_ = compose(banks, args.batch)
        images = ((images - MEAN[0]) / STD[0]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                wanted = normalize(teacher(images).float(), dim=1)
            given = normalize(student(images).float(), dim=1)
        # Not only near the teacher's feature, but nearer to it than to those of the other pictures.
        cosine = given @ wanted.T
        loss = 1 - cosine.diagonal().mean() + 0.2 * cross_entropy(20 * cosine, torch.arange(len(images)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(student)
        step, drift = step + 1, drift + cosine.diagonal().mean().item()
        if step % 100 == 0:
            speed = (step - first) * args.batch / (time.time() - started)
            print(f"step {step} of {args.steps}  cosine {drift / 100:.3f}  {speed:.0f}/s", flush=True)
            drift = 0.0
        if step % 500 == 0 or step == args.steps:
            state = {"student": student.state_dict(), "averaged": averaged.state_dict(), "step": step}
            torch.save(state | {"optimizer": optimizer.state_dict()}, path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)


def export(args) -> None:
    import open_clip

    out = Path(__file__).resolve().parents[1] / "vpkit/data/clip"
    out.mkdir(parents=True, exist_ok=True)
    kept = torch.load(args.folder / "tiny.pt", weights_only=True)
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(kept["model"])
    print(save_own(out / "tiny.safetensors", model, CONFIG, MEAN, STD, kept["rows"]))
    if (args.folder / "vit.pt").exists():
        averaged = torch.load(args.folder / "vit.pt", weights_only=True)["averaged"]
        model = open_clip.CLIP(**VIT_CONFIG)
        model.visual.conv1 = convolutional_stem(**STEM)
        model.visual.load_state_dict({k.removeprefix("module."): v for k, v in averaged.items() if k[:7] == "module."})
        path = out / "tiny-vit.safetensors"
        print(save_own(path, model, VIT_CONFIG, MEAN, STD, None, text_from="tiny.safetensors", stem=STEM))


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
    keep_freed_memory()
    {"tower": train_tower, "text": train_text, "vit": train_vit, "export": export}[args.stage](args)
