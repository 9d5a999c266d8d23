"""What `run.py` measures: each case in vpkit's way and in a plain way, as functions from options to numbers."""

import os
import resource
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import plain
import torch
from PIL import Image

import vpkit
from vpkit.book.session import keep_freed_memory
from vpkit.datasets.icons import ICON_NAMES, draw_icon
from vpkit.models.efficientnet_lite import unfolded_efficientnet_lite0


def chosen_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def wait(device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def icon_folder(root: Path, per_class: dict[str, int], classes: int) -> Path:
    """Icons as PNG files in `root`/{train,val,test}/<class>/."""
    for split, count in per_class.items():
        for c in range(classes):
            folder = root / split / ICON_NAMES[c].replace(" ", "_")
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(draw_icon(96, 0, split, c, i)).save(folder / f"{i:03}.png")
    return root


def ilm_vp(args) -> dict:
    """A full run of ILM-VP from a folder of images, decoding included; then accuracy on its test split."""
    device = chosen_device()
    torch.manual_seed(args.seed)
    sizes = (round(args.canvas * 80 / 112), args.canvas)
    with tempfile.TemporaryDirectory() as name:
        per_class = {"train": max(1, args.train // args.classes), "val": 1, "test": 8}
        folder = icon_folder(Path(name), per_class, args.classes)
        started = perf_counter()
        if args.variant == "vpkit":
            accuracy = _ours(args, folder, sizes, device)
        else:
            network = unfolded_efficientnet_lite0().to(device)
            accuracy = plain.plain_ilm_vp(
                network, (0.498,) * 3, (0.502,) * 3, folder, sizes, args.epochs, args.batch, 0.05, device,
                trainable=args.variant == "plain, model trainable",
            )  # fmt: skip
        wait(device)
        return {"seconds": perf_counter() - started, "accuracy": accuracy}


def _ours(args, folder, sizes, device) -> float:
    frozen = vpkit.load_frozen("efficientnet_lite0", device)
    load = partial(vpkit.load_dataset, f"folder:{folder}", size=sizes[0])
    train, test = load("train").to(device), load("test").to(device)
    prompt = vpkit.prompts.ExpandPrompt(*sizes).to(device)
    classifier = vpkit.PromptedClassifier(prompt, frozen, vpkit.mappings.identity_mapping(args.classes).to(device))
    optimizer = torch.optim.Adam(prompt.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [int(0.5 * args.epochs), int(0.72 * args.epochs)])
    for _ in range(args.epochs):
        classifier.mapping = vpkit.mappings.frequency_mapping(
            vpkit.mappings.count_predictions(frozen, prompt, train.batches(64))
        )
        vpkit.train_epoch(classifier, train.batches(args.batch, shuffle=True), optimizer)
        schedule.step()
    return vpkit.evaluate(classifier, test.batches(64)).accuracy


def clip_vp(args) -> dict:
    """Seconds for one training step of VP on CLIP (architecture of ViT-B/32, random weights)."""
    import open_clip

    device = chosen_device()
    torch.manual_seed(0)
    network = open_clip.create_model(args.architecture, pretrained=None, force_quick_gelu=True).eval().to(device)
    sentences = [f"This is a photo of a {name}" for name in (*ICON_NAMES, *ICON_NAMES)[: args.classes]]
    clip = vpkit.models.FrozenCLIP(network)
    images = torch.rand(args.batch, 3, clip.image_size, clip.image_size, device=device)
    labels = torch.randint(len(sentences), (args.batch,), device=device)
    if args.variant == "vpkit":
        width = round(clip.image_size * 30 / 224)
        prompt = vpkit.prompts.PadPrompt(clip.image_size, width, scale=clip.std.cpu()).to(device)
        optimizer = torch.optim.SGD(prompt.parameters(), lr=0.01)
        mapping = vpkit.mappings.identity_mapping(len(sentences)).to(device)
        classifier = vpkit.PromptedClassifier(prompt, clip.zero_shot(sentences), mapping)
        batches = [(images, labels)]
        step = partial(vpkit.train_epoch, classifier, batches, optimizer)
    else:
        tokens = open_clip.get_tokenizer(args.architecture)(sentences).to(device)
        network.requires_grad_(True)
        program = torch.zeros(3, clip.image_size, clip.image_size, device=device, requires_grad=True)
        optimizer = torch.optim.SGD([program], lr=0.01)
        mean, std = clip.mean[:, None, None], clip.std[:, None, None]
        step = partial(plain.plain_clip_step, network, tokens, images, labels, mean, std, program, optimizer)
    return {"seconds": _per_call(step, args.steps, device)}


def coop(args) -> dict:
    """Seconds for one training step of CoOp (4 learned words); ours starts from image features computed once."""
    import open_clip

    device = chosen_device()
    torch.manual_seed(args.seed)
    if args.architecture == "tiny":
        clip = vpkit.load_clip("tiny", device)
    else:  # random weights: as fast as any
        clip = vpkit.models.FrozenCLIP(
            open_clip.create_model(args.architecture, force_quick_gelu=True).eval().to(device)
        )
    names = ICON_NAMES[: args.classes]
    images = torch.rand(args.batch, 3, clip.image_size, clip.image_size, device=device)
    labels = torch.randint(len(names), (args.batch,), device=device)
    if args.variant == "vpkit":
        started = perf_counter()
        with torch.no_grad():
            features = clip.encode_image(images)
        wait(device)
        caching = perf_counter() - started
        prompt = vpkit.prompts.ContextPrompt(clip, names, 4)
        classifier = vpkit.methods.TextPromptedClassifier(prompt, clip.logit_scale)
        optimizer = torch.optim.SGD(prompt.parameters(), lr=0.002)
        step = partial(vpkit.train_epoch, classifier, [(features, labels)], optimizer)
        return {"seconds": _per_call(step, args.steps, device), "caching_seconds": caching}
    tokens = clip.tokenize([f"X X X X {name}." for name in names])
    context = (0.02 * torch.randn(4, clip.text_width)).to(device).requires_grad_()
    optimizer = torch.optim.SGD([context], lr=0.002)
    normalised = (images - clip.mean[:, None, None]) / clip.std[:, None, None]
    step = partial(plain.plain_coop_step, clip.network, tokens, normalised, labels, context, optimizer)
    return {"seconds": _per_call(step, args.steps, device), "caching_seconds": 0.0}


def flowers(args) -> dict:
    """A whole ILM-VP run at the size of Flowers102 (4,093 + 2,463 images of 128 px, 102 classes), images and weights
    random: ResNet-18 at 224 px, a new mapping every epoch, validation every 10. Decoding is not part of it.
    """
    from torchvision.models import resnet18

    device = chosen_device()
    torch.manual_seed(0)
    names = tuple(map(str, range(102)))

    def random_set(n):
        labels = torch.arange(n) % 102
        return vpkit.ImageSet(torch.randint(0, 256, (n, 3, 128, 128), dtype=torch.uint8), labels, names).to(device)

    train, test = random_set(max(102, args.train)), random_set(max(102, args.train * 2463 // 4093))
    network = resnet18()
    classes = tuple(map(str, range(1000)))
    frozen = vpkit.models.FrozenModel(network, classes)
    frozen = frozen.to(device, memory_format=torch.channels_last)
    prompt = vpkit.prompts.ExpandPrompt(128, args.canvas).to(device)
    classifier = vpkit.PromptedClassifier(prompt, frozen, vpkit.mappings.identity_mapping(102).to(device))
    optimizer = torch.optim.Adam(prompt.parameters(), lr=0.01)
    wait(device)
    started = perf_counter()
    for epoch in range(1, args.epochs + 1):
        classifier.mapping = vpkit.mappings.frequency_mapping(
            vpkit.mappings.count_predictions(frozen, prompt, train.batches(512))
        )
        vpkit.train_epoch(classifier, train.batches(args.batch, shuffle=True), optimizer)
        if epoch % 10 == 0:
            vpkit.evaluate(classifier, test.batches(512))
    wait(device)
    return {"seconds": perf_counter() - started}


def prompt_step(args, device):
    """A frozen model by the name of its architecture and a prompt of the papers' size, as a closure over one step."""
    from torchvision.models import resnet50

    name = args.architecture
    if name == "ViT-B-32":
        import open_clip

        clip = vpkit.models.FrozenCLIP(open_clip.create_model(name, force_quick_gelu=True).eval().to(device))
        prompt, image = vpkit.prompts.PadPrompt(224, 30, scale=clip.std.cpu()), 224
        model = clip.zero_shot([f"This is a photo of a {name}" for name in ICON_NAMES])
    elif name == "resnet50":
        network, classes = resnet50(), tuple(map(str, range(1000)))
        model = vpkit.models.FrozenModel(network, classes)
        prompt, image = vpkit.prompts.ExpandPrompt(128, 224), 128
    else:
        model, image = vpkit.load_frozen("efficientnet_lite0", device), round(args.canvas * 80 / 112)
        prompt = vpkit.prompts.ExpandPrompt(image, args.canvas)
    model = model.to(device, memory_format=torch.channels_last)
    classifier = vpkit.PromptedClassifier(prompt.to(device), model, vpkit.mappings.identity_mapping(66).to(device))
    optimizer = torch.optim.Adam(prompt.parameters(), lr=0.01)
    images = torch.rand(args.batch, 3, image, image, device=device)
    batches = [(images, torch.randint(66, (args.batch,), device=device))]
    return partial(vpkit.train_epoch, classifier, batches, optimizer)


def peak(args) -> dict:
    """Achieved FLOP/s of a prompt step, and of a large matmul and convolution beside it, in the same precision."""
    from torch.utils.flop_counter import FlopCounterMode

    device = chosen_device()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    side = 8192 if device.type == "cuda" else args.matmul
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    matmul = 2 * side**3 / _per_call(lambda: a @ b, args.steps, device)
    convolution = torch.nn.Conv2d(256, 256, 3, padding=1, device=device, dtype=dtype, bias=False)
    convolution.to(memory_format=torch.channels_last)
    x = torch.randn(args.batch, 256, 28, 28, device=device, dtype=dtype).to(memory_format=torch.channels_last)
    with torch.no_grad():
        flops = 2 * args.batch * 28 * 28 * 256 * 256 * 9
        conv = flops / _per_call(lambda: convolution(x), args.steps, device)
    step = prompt_step(args, device)
    with FlopCounterMode(display=False) as counter:
        step()
    seconds = _per_call(step, args.steps, device)
    achieved = counter.get_total_flops() / seconds
    return {
        "seconds": seconds,
        "images_per_second": args.batch / seconds,
        "gflops": achieved / 1e9,
        "matmul_gflops": matmul / 1e9,
        "convolution_gflops": conv / 1e9,
    }


def mapping_pass(args) -> dict:
    """Seconds to count predictions and map, for growth with images, classes and resolution."""
    device = chosen_device()
    frozen = vpkit.load_frozen("efficientnet_lite0", device)
    image = round(args.canvas * 80 / 112)
    prompt = vpkit.prompts.ExpandPrompt(image, args.canvas).to(device)
    labels = torch.arange(args.train) % args.classes
    images = torch.randint(0, 256, (args.train, 3, image, image), dtype=torch.uint8)
    batches = vpkit.ImageSet(images, labels, tuple(map(str, range(args.classes)))).to(device).batches(64)
    step = lambda: vpkit.mappings.frequency_mapping(vpkit.mappings.count_predictions(frozen, prompt, batches))  # noqa: E731
    return {"seconds": _per_call(step, args.steps, device)}


def logoprompt(args) -> dict:
    """LoGoPrompt's epochs on icons: seconds of the first and of a later one, and test accuracy at the end.

    The plain variant encodes the image and its 1 + K pasted copies in every step, at a new place each time.
    """
    device, cached = chosen_device(), args.variant == "vpkit"
    clip = vpkit.load_clip("tiny", device)
    load = partial(vpkit.load_dataset, "icons", size=clip.image_size, seed=args.seed)
    shots, test_images = load("train", shots=args.shots).to(device), load("test", subset=args.test).to(device)
    train, test = (vpkit.methods.NamePastedImages(clip, images, seed=args.seed) for images in (shots, test_images))
    torch.manual_seed(args.seed)
    prompt = vpkit.prompts.ContextPrompt(clip, train.class_names, words="a photo of a", class_specific=True)
    kind = vpkit.methods.LoGoPromptClassifier if cached else _EncodesEveryTime
    classifier = kind(prompt, clip.logit_scale)
    optimizer = torch.optim.SGD(prompt.parameters(), lr=0.1, momentum=0.9)
    batches = train.batches(args.batch, shuffle=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, vpkit.training.schedules.cosine(args.epochs, len(batches)))
    seconds = []
    for _ in range(args.epochs):
        wait(device)
        started = perf_counter()
        vpkit.train_epoch(classifier, batches, optimizer, schedule)
        wait(device)
        seconds.append(perf_counter() - started)
    accuracy = vpkit.evaluate(vpkit.methods.LoGoPromptClassifier(prompt, clip.logit_scale), test.batches(64)).accuracy
    return {"seconds": seconds[-1], "first_epoch_seconds": seconds[0], "accuracy": accuracy}


class _EncodesEveryTime(vpkit.methods.LoGoPromptClassifier):
    """LoGoPrompt without a cache: plain and pasted images go through the image tower in every step."""

    def loss(self, images, labels):
        pairs = images.pairs
        with torch.no_grad():
            features = pairs.encode(pairs.images[images.positions].float() / 255)
        return super().loss(vpkit.methods.logoprompt.PastedImages(features, images.positions, pairs), labels)

    def _encode_named(self, images, classes):  # at a new place each time
        strips = images.pairs.strips
        tops = vpkit.prompts.strip_offsets(classes.numel(), strips.shape[3], strips.shape[2])
        with torch.no_grad():
            return images.with_strips(classes, strips.float() / 255, tops)


def dpt(args) -> dict:
    """Seconds for one training step of DPT on tiny-vit; the plain variant embeds images and runs CLIP every time."""
    device = chosen_device()
    torch.manual_seed(0)
    clip = vpkit.load_clip("tiny-vit", device)
    images = vpkit.load_dataset("icons", "val", size=clip.image_size, subset=max(66, args.batch)).to(device)
    names = images.class_names
    written = clip.encode_text(vpkit.prompts.fill_templates("a photo of a {}.", names))
    aware = vpkit.prompts.ClassAwareTokens(
        clip.embed_dim, clip.network.visual.positional_embedding.shape[1], len(names)
    )
    tokens = vpkit.prompts.TokenPrompt(clip, 10, class_aware={4: aware})
    text = vpkit.prompts.ContextPrompt(clip, names, words="a photo of a")
    model = vpkit.methods.DualPromptClassifier(clip, tokens, written, text).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    split = vpkit.prompts.cache_patches(clip, images) if args.variant == "vpkit" else images
    batches = [next(iter(split.batches(args.batch)))]
    return {"seconds": _per_call(lambda: vpkit.train_epoch(model, batches, optimizer), args.steps, device)}


def _per_call(call, steps: int, device) -> float:
    call()
    wait(device)
    started = perf_counter()
    for _ in range(steps):
        call()
    wait(device)
    return (perf_counter() - started) / steps


CASES = {
    "ilm_vp": ilm_vp, "clip_vp": clip_vp, "logoprompt": logoprompt, "dpt": dpt, "coop": coop, "peak": peak,
    "mapping_pass": mapping_pass, "flowers": flowers,
}  # fmt: skip


@dataclass(frozen=True)
class Options:
    variant: str  # "vpkit", "plain" or "plain, model trainable"
    epochs: int = 3
    train: int = 990
    test: int = 264
    classes: int = 66
    canvas: int = 112
    batch: int = 16
    steps: int = 5
    matmul: int = 2048
    shots: int = 16
    seed: int = 0
    architecture: str = "ViT-B-32"


def measured(case: str, options: Options) -> dict:
    """What the case measures, and the most memory that this process has had: one process for each."""
    if options.variant == "vpkit":
        keep_freed_memory()
    with tempfile.TemporaryDirectory() as cache:  # decoding counts: nobody starts from a warm cache
        os.environ["VPKIT_CACHE"] = cache
        found = CASES[case](options)
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if torch.cuda.is_available():
        found["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return found
