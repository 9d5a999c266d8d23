"""Train `tiny` and `tiny-vit`, the CLIP models that ship with vpkit.

    python tools/train_tiny_clip.py tower --data DIR   # image tower, as a classifier over every name and style
    python tools/train_tiny_clip.py text               # text tower, on the class vectors of the image tower
    python tools/train_tiny_clip.py joint --data DIR   # image tower again, against the sentences themselves
    python tools/train_tiny_clip.py vit --data DIR     # tiny-vit, distilled from tiny
    python tools/train_tiny_clip.py export --data DIR  # fp16 safetensors into vpkit/data/clip/

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
from tiny_clip.distil import Student, teacher_stages
from tiny_clip.optimize import Muon, Training, averaged_weights, in_workers, start_worker
from tiny_clip.pictures import MASK, STYLE_NAMES, STYLES, compose, style_of, with_strip
from tiny_clip.prepare import prepare
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import (
    adaptive_avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    normalize,
    softplus,
)

from vpkit.book.session import keep_freed_memory
from vpkit.datasets.icons import ICONS
from vpkit.models.clip import encode_embedded
from vpkit.models.tiny_clip import convolutional_stem, save_tiny_clip
from vpkit.prompts import clip_templates, fill_templates

EMBED, SIDE, SMALL, LETTERS = 256, 96, 64, 12
MEAN, STD = (0.5,) * 3, (0.25,) * 3
TEXT = {"context_length": 48, "vocab_size": 49408, "width": 160, "heads": 5, "layers": 3}
CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {"layers": [2, 2, 2, 2], "width": 24, "head_width": 64, "image_size": SIDE, "patch_size": None},
    "text_cfg": TEXT,
}
STEM = {"width": 128, "patch_size": 8, "channels": 24, "blocks": 2}
VIT_KINDS = {"emoji": 0.14, "symbol": 0.32, "clipart": 0.06, "shape": 0.02, "photo": 0.34, "word": 0.12}
VIT_CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {"layers": 4, "width": 128, "head_width": 32, "image_size": SIDE, "patch_size": 8},
    "text_cfg": TEXT,
}
STYLE_SHARE = 0.5  # length of a style vector beside a class vector of length 1
OTHER_TEMPLATES = ("{}", "a {}", "the {}", "{}.", "an icon of a {}.", "the word {}.", "This is a photo of a {}")
UNSEEN = tuple("0123456789")


class Tower(nn.Module):
    """Image tower with a unit vector for every name and every style; two heads only training needs.

    `letters` reads the first letters of a word and `masks` gives back the drawing's silhouette: many answers to each
    picture where its name is one of 2000, which is what gets reading off the ground (see book/tiny_clip.md).
    """

    def __init__(self, num_names: int):
        import open_clip

        super().__init__()
        self.visual = open_clip.CLIP(**CONFIG).visual
        pool = self.visual.attnpool
        # The attention pool starts as the mean of the map followed by two linear maps: attention to nothing.
        nn.init.zeros_(pool.k_proj.weight), nn.init.zeros_(pool.positional_embedding)
        nn.init.orthogonal_(pool.v_proj.weight), nn.init.zeros_(pool.v_proj.bias)
        width = pool.v_proj.in_features
        self.names = nn.Parameter(torch.randn(num_names, EMBED))
        self.styles = nn.Parameter(torch.randn(len(STYLES), EMBED))
        self.log_scale = nn.Parameter(torch.tensor([2.7, 2.7]))
        self.letters = nn.Linear(3 * width, LETTERS * 27)
        self.masks = nn.Linear(9 * width, MASK * MASK)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[0, 1] pictures to logits over names, over styles, over letters (N, 27, LETTERS), of masks (N, MASK^2)."""
        visual = self.visual
        x = visual.stem((images - MEAN[0]) / STD[0])
        for stage in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = stage(x)
        if images.shape[-1] == SIDE:
            features = visual.attnpool(x)
        else:  # what the pool does before it has learned to attend; its position table fits one size only
            features = visual.attnpool.c_proj(visual.attnpool.v_proj(x.mean((2, 3))))
        features, scale = normalize(features.float(), dim=1), self.log_scale.clamp(max=4.0).exp()
        letters = self.letters(adaptive_avg_pool2d(x, (1, 3)).flatten(1)).float().view(-1, 27, LETTERS)
        masks = self.masks(adaptive_avg_pool2d(x, (3, 3)).flatten(1)).float()
        by_name, by_style = (features @ normalize(table).T for table in (self.names, self.styles))
        return scale[0] * by_name, scale[1] * by_style, letters, masks


def letters_of(names: list[str]) -> Tensor:
    """(C, LETTERS) the first letters as 1 to 26; 0 for a space or nothing."""
    padded = [name[:LETTERS].ljust(LETTERS) for name in names]
    return torch.tensor([[ord(c) - 96 if "a" <= c <= "z" else 0 for c in name] for name in padded])


def train_tower(rank: int, args) -> None:
    """The image tower as a classifier over every name and style."""
    start_worker(rank, args.workers, args.folder)
    banks, names, reading = prepare(args.data, args.folder)
    sized = {SMALL: banks.resized(SMALL), SIDE: banks}
    letters = letters_of(names)
    easy = torch.zeros(len(names), dtype=torch.bool)
    easy[[names.index(name) for name in reading[:110]]] = True
    torch.manual_seed(args.seed)
    tower = Tower(len(names)).to(memory_format=torch.channels_last)

    def losses(progress: float) -> tuple[Tensor, dict]:
        # Easy to hard: few words on plain ground and small pictures first, at the end everything at full size.
        shown = compose(
            sized[SMALL if progress < 0.8 else SIDE],
            args.batch,
            hardness=min(1.0, max(0.0, (progress - 0.1) / 0.3)),
            easy_words=easy if progress < 0.08 else None,
        )
        with torch.autocast("cpu", torch.bfloat16):
            by_name, by_style, by_letter, masks = tower(shown.images.to(memory_format=torch.channels_last))
        one, two = shown.concepts.T
        named = 0.5 * (cross_entropy(by_name, one) + cross_entropy(by_name, two))
        read = cross_entropy(by_letter[shown.worded], letters[two[shown.worded]])
        drawn = shown.masks[:, 0, 0] >= 0
        silhouette = binary_cross_entropy_with_logits(masks[drawn], shown.masks[drawn].flatten(1))
        hit = by_name.argmax(1) == two
        values = {"loss": named, "letters": read, "seen": hit[~shown.worded].float().mean()}
        values["read"] = hit[shown.worded].float().mean()
        return named + 0.2 * cross_entropy(by_style, shown.styles) + 0.5 * read + 2 * silhouette, values

    Training(tower, optimizers_of(tower, args.lr), args.folder / "tower.pt", args.steps).run(losses, rank, args.seed)


def optimizers_of(network: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the convolutions, all of which stand before a BatchNorm, AdamW for the rest."""
    filters = [p for p in network.parameters() if p.ndim == 4]
    others = [p for p in network.parameters() if p.ndim != 4]
    return [Muon(filters, lr), torch.optim.AdamW(others, lr / 25, weight_decay=0.0)]


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
        with torch.autocast("cpu", torch.bfloat16):
            features = encode_embedded(model, model.token_embedding(tokens), tokens.argmax(1))
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


def load_tower(folder: Path) -> tuple[Tower, list[str]]:
    """The averaged image tower and its names."""
    names = torch.load(folder / "banks.pt", weights_only=True, mmap=True)["names"]
    tower = Tower(len(names))
    tower.load_state_dict(averaged_weights(folder / "tower.pt"))
    return tower.eval(), names


@torch.no_grad()
def sentences_in_memory(model: nn.Module, names: list[str]) -> Tensor:
    """Features (styles, C, D) of one sentence for each name in each style."""
    import open_clip

    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=TEXT["context_length"])
    asking = [next(t for t in clip_templates() if style_of(t) == style) for style in STYLE_NAMES]
    tokens = tokenizer(fill_templates(asking, names))
    parts = [encode_embedded(model, model.token_embedding(part), part.argmax(1)) for part in tokens.split(1024)]
    return torch.cat(parts).view(len(asking), len(names), -1)


def train_joint(rank: int, args) -> None:
    """The image tower is tuned against a memory of sentences, every name in every style; the text tower rests."""
    import open_clip

    start_worker(rank, args.workers, args.folder)
    banks, names, _ = prepare(args.data, args.folder)
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(torch.load(args.folder / "tiny.pt", weights_only=True)["model"])
    memory, visual = sentences_in_memory(model, names), model.visual.to(memory_format=torch.channels_last)
    scale = model.logit_scale.detach().exp()

    def losses(progress: float) -> tuple[Tensor, dict]:
        shown, bare = compose(banks, args.batch), compose(banks, args.batch // 2, hardness=0.3)
        own = banks.word_of(bare.concepts[:, 0])
        rows = torch.where((own >= 0) & ~bare.worded)[0]
        named = with_strip(bare.images[rows], banks.words[0][own[rows]].float() / 255).clamp(0, 1)
        images = torch.cat([shown.images, bare.images[rows], named])
        with torch.autocast("cpu", torch.bfloat16):
            features = visual(((images - MEAN[0]) / STD[0]).to(memory_format=torch.channels_last))
        features = normalize(features.float(), dim=1)
        seen, plain, pasted = features.split([len(shown.images), len(rows), len(rows)])
        one, two = shown.concepts.T
        named_loss = 0.0
        for style in shown.styles.unique():
            mine = shown.styles == style
            by_name = scale * seen[mine] @ memory[style].T
            for concept in (one, two):
                named_loss = named_loss + 0.5 * cross_entropy(by_name, concept[mine], reduction="sum")
        named_loss = named_loss / len(seen)
        by_style = scale * torch.einsum("bd,sbd->bs", seen, memory[:, one])
        plain_words = ~shown.worded
        style_loss = cross_entropy(by_style[plain_words], shown.styles[plain_words])
        # A picture with its own name on it is nearer to the sentence than the picture alone.
        target = memory[0, bare.concepts[rows, 0]]
        gain = ((pasted - plain) * target).sum(1)
        raised = softplus(20 * (0.05 - gain)).mean()
        values = {"loss": named_loss, "style": style_loss, "raised": (gain > 0).float().mean()}
        return named_loss + 0.3 * style_loss + raised, values

    Training(visual, optimizers_of(visual, args.lr), args.folder / "joint.pt", args.steps).run(losses, rank, args.seed)


def image_tower(folder: Path) -> nn.Module:
    """The image tower of `tiny` as far as it is trained."""
    import open_clip

    visual = open_clip.CLIP(**CONFIG).visual
    joint = folder / "joint.pt"
    visual.load_state_dict(averaged_weights(joint) if joint.exists() else load_tower(folder)[0].visual.state_dict())
    return visual.eval()


def train_vit(rank: int, args) -> None:
    """`tiny-vit` learns to give the features of `tiny` on pictures composed as before."""
    import open_clip

    start_worker(rank, args.workers, args.folder)
    banks, names, _ = prepare(args.data, args.folder)
    banks.favour(names, ICONS, 3.0)  # the small model cannot know 2000 names as well as those of the book
    teacher = open_clip.CLIP(**CONFIG)
    teacher.load_state_dict(torch.load(args.folder / "tiny.pt", weights_only=True)["model"])
    teacher.visual = image_tower(args.folder).to(memory_format=torch.channels_last)
    memory = sentences_in_memory(teacher, names)[0]
    torch.manual_seed(args.seed)
    student = Student(tiny_vit().visual, teacher.visual).to(memory_format=torch.channels_last)
    stages = teacher_stages(teacher.visual)

    def losses(progress: float) -> tuple[Tensor, dict]:
        shown = compose(banks, args.batch, hardness=min(1.0, 2 * progress), kinds=VIT_KINDS)
        images = ((shown.images - MEAN[0]) / STD[0]).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                maps = [images]
                for stage in stages:
                    maps.append(stage(maps[-1]))
                wanted = normalize(teacher.visual.attnpool(maps[-1]).float(), dim=1)
            dropped = 0.75 if progress < 0.5 else 0.5 if progress < 0.92 else 0.0
            given, error = student(maps[1], maps[2:], dropped)
        # Not only near the teacher's feature, but nearer to it than to those of the other pictures,
        # and nearer to the sentences of what is shown than to all others.
        cosine = given @ wanted.T
        near = cosine.diagonal().mean()
        other = cross_entropy(20 * cosine, torch.arange(len(images)))
        by_name = 20 * given @ memory.T
        named = sum(0.5 * cross_entropy(by_name, concept) for concept in shown.concepts.T)
        hit = by_name.argmax(1) == shown.concepts[:, 1]
        values = {"cosine": near, "helpers": error, "seen": hit[~shown.worded].float().mean()}
        values["read"] = hit[shown.worded].float().mean()
        return 2 * (1 - near) + 0.2 * other + 0.2 * named + error, values

    # torch's Muon (from 2.9 on) for the matrices of the blocks, AdamW for everything else.
    learned = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    matrices = [p for name, p in learned if "resblocks" in name and p.ndim == 2]
    others = [p for name, p in learned if not ("resblocks" in name and p.ndim == 2)]
    muon = torch.optim.Muon(matrices, lr=2 * args.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    optimizers = [muon, torch.optim.AdamW(others, args.lr, weight_decay=0.05)]
    with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused attention's way back takes four times as long
        Training(student, optimizers, args.folder / "vit.pt", args.steps).run(losses, rank, args.seed)


def tiny_vit() -> nn.Module:
    import open_clip

    model = open_clip.CLIP(**VIT_CONFIG)
    model.visual.conv1 = convolutional_stem(**STEM)
    return model


@torch.no_grad()
def features_of(model: nn.Module, banks) -> Tensor:
    """512 training pictures as the model sees them: what the book measures the distance to its data by."""
    pictures = compose(banks, 512).images
    return normalize(model.eval().visual((pictures - MEAN[0]) / STD[0]), dim=1)


def export(args) -> None:
    import open_clip

    out = Path(__file__).resolve().parents[1] / "vpkit/data/clip"
    out.mkdir(parents=True, exist_ok=True)
    kept = torch.load(args.folder / "tiny.pt", weights_only=True)
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(kept["model"])
    model.visual = image_tower(args.folder)
    banks, *_ = prepare(args.data, args.folder)
    torch.manual_seed(args.seed)
    reference = features_of(model, banks)
    print(save_tiny_clip(out / "tiny.safetensors", model, CONFIG, MEAN, STD, kept["rows"], reference))
    if (args.folder / "vit.pt").exists():
        model = tiny_vit()
        trained = averaged_weights(args.folder / "vit.pt")
        of_visual = {k.removeprefix("visual."): v for k, v in trained.items() if k.startswith("visual.")}
        model.visual.load_state_dict(of_visual)
        reference, path = features_of(model, banks), out / "tiny-vit.safetensors"
        kept = {"text_from": "tiny.safetensors", "stem": STEM}
        print(save_tiny_clip(path, model, VIT_CONFIG, MEAN, STD, None, reference, **kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["tower", "text", "joint", "vit", "export"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("_build/tiny_clip"), help="banks and checkpoints")
    parser.add_argument("--steps", type=int, help="default: tower 4500, text 1600, joint 300, vit 3000")
    parser.add_argument("--batch", type=int, default=192, help="of each process")
    parser.add_argument("--workers", type=int, default=2, help="processes that train an image tower")
    parser.add_argument("--lr", type=float, help="default: tower 0.03, joint 0.005 (of Muon), else 1e-3")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.steps = args.steps or {"tower": 4500, "text": 1600, "joint": 300, "vit": 3000, "export": 0}[args.stage]
    args.lr = args.lr or {"tower": 0.03, "joint": 0.005}.get(args.stage, 1e-3)
    keep_freed_memory()
    if args.stage in ("tower", "joint", "vit"):
        in_workers({"tower": train_tower, "joint": train_joint, "vit": train_vit}[args.stage], args)
    else:
        {"text": train_text, "export": export}[args.stage](args)
