"""Make the files of the page *Try it*: networks, learned prompts and the runtime, as scripts that a browser can load.

    python tools/build_live.py             make live
    python tools/build_live.py --optional  the same; where npm or its registry is missing, one line and no files

A page opened from a folder may not fetch files, but it may load scripts: each pack is a script with one call, whose
text is base64 of gzip of safetensors. They go to `_build/live/packs`, from where the book takes them
(`book/_ext/live.py`).
"""

import argparse
import base64
import gzip
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import resources
from io import BytesIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "live"
OUT = ROOT / "_build" / "live"
PACKS = OUT / "packs"
# Whose runs at their defaults the page takes prompts from: whoever runs them keeps what they learn (live_prompts.RUNS).
LIVE_CHAPTERS = ("01_visual_prompting",)
SHOWN_ICONS = (
    "cat", "mouse", "umbrella", "airplane", "house", "sun", "scissors", "telephone", "anchor", "snowman", "music note",
    "pencil",
)  # fmt: skip
SHOWN_PAIRS = 8
SHOWN_DIGITS = 2  # of each
LETTERS = [*range(0x20, 0x7F), *range(0xA0, 0x180), *range(0x384, 0x400), *range(0x400, 0x460)]  # of the strips' font


class NoPackages(Exception):
    """The npm packages cannot be had."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--optional", action="store_true", help="no error where npm or its registry is missing")
    parser.add_argument("--workers", type=int, help="chapters at once, if some must be run; default: one a core")
    options = parser.parse_args()
    try:
        modules = install()
    except NoPackages as error:
        print(f"the page Try it is built without its models: {error}", file=sys.stderr)
        return 0 if options.optional and os.environ.get("VPKIT_LIVE") != "required" else 1
    build(modules, options.workers)
    return 0


def install() -> Path:
    """The packages of `live/package-lock.json`, each checked against its sha512 by npm: the folder they are in.

    Raises:
        NoPackages: no npm, or no registry; the message is a line.
    """
    npm, folder = shutil.which("npm"), OUT / "npm"
    if npm is None:
        raise NoPackages("npm is not installed (it comes with Node.js)")
    files = [SOURCE / name for name in ("package.json", "package-lock.json", ".npmrc")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    mark = folder / "installed"
    if not (mark.is_file() and mark.read_text() == digest):
        folder.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        for path in files:
            shutil.copy(path, folder)
        finished = subprocess.run([npm, "ci", "--silent"], cwd=folder, capture_output=True, text=True, check=False)
        if finished.returncode:
            said = (finished.stderr or finished.stdout).strip().splitlines()
            raise NoPackages(f"npm ci failed ({said[0] if said else finished.returncode})")
        mark.write_text(digest)
    return folder / "node_modules"


def build(modules: Path, workers: int | None = None) -> None:
    """Write all packs and `manifest.json`, which says how large they are."""
    from live_prompts import finished_runs

    import vpkit

    runs = finished_runs(workers)
    PACKS.mkdir(parents=True, exist_ok=True)
    (PACKS / "manifest.json").unlink(missing_ok=True)  # without it no pack counts: a killed run leaves none half made
    for name in ("page", "worker"):
        bundle(modules, name)
    shutil.copy(SOURCE / "src" / "live.css", PACKS)
    write_pack("runtime", *runtime_pack(modules))
    write_pack("digit", *digit_pack(runs))
    clip = vpkit.load_clip("tiny")
    write_pack("clip", *clip_pack(runs, clip))
    write_pack("names", *names_pack(runs, clip))
    write_pack("look", *look_pack(runs))
    sizes = {path.stem: path.stat().st_size for path in sorted(PACKS.glob("*.js"))}
    (PACKS / "manifest.json").write_text(json.dumps(sizes, indent=1) + "\n")
    listed = ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
    print(f"{PACKS.relative_to(ROOT)}: {sum(sizes.values()) / 1e6:.1f} MB ({listed})")


def bundle(modules: Path, name: str) -> None:
    """One script of the modules that `name`.js imports; the worker's as a text, for the page to start it from."""
    command = [
        modules / ".bin" / "esbuild", SOURCE / "src" / f"{name}.js", "--bundle", "--minify", "--format=iife",
        "--target=es2022", "--charset=utf8", "--log-level=warning",
    ]  # fmt: skip
    text = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    (PACKS / f"{name}.js").write_text(
        text if name == "page" else f"vpkitLive.pack({json.dumps(name)}, {json.dumps(text)});\n"
    )


def write_pack(name: str, tensors: dict, metadata: dict) -> None:
    """A script that gives the page `tensors` (NumPy arrays, bytes or torch tensors) and `metadata` (as JSON)."""
    import numpy as np
    from safetensors.numpy import save

    arrays = {
        key: np.frombuffer(value, np.uint8) if isinstance(value, bytes) else np.ascontiguousarray(np.asarray(value))
        for key, value in tensors.items()
    }
    packed = gzip.compress(save(arrays, {key: json.dumps(value) for key, value in metadata.items()}), 9, mtime=0)
    (PACKS / f"{name}.js").write_text(f'vpkitLive.pack("{name}", "{base64.b64encode(packed).decode()}");\n')


def runtime_pack(modules: Path) -> tuple[dict, dict]:
    folder = modules / "onnxruntime-web" / "dist"
    files = {"script": "ort.wasm.min.js", "loader": "ort-wasm-simd-threaded.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
    return {key: (folder / name).read_bytes() for key, name in files.items()}, {}


def digit_pack(runs: dict) -> tuple[dict, dict]:
    import torch
    from live_graphs import frozen_graph
    from live_prompts import digit_prompts

    import vpkit

    model = vpkit.load_frozen("efficientnet_lite0")
    prompts = digit_prompts(runs, model.std)
    test = vpkit.load_dataset("mnist5k", "test", size=28)
    shown = torch.cat([torch.where(test.labels == digit)[0][:SHOWN_DIGITS] for digit in range(10)])
    tensors = {"graph": kept_graph("efficientnet_lite0", lambda: frozen_graph(model))}
    tensors["digits"] = test[shown].images[:, 0]
    for row in prompts:
        tensors[f"{row['name']}.picture"], tensors[f"{row['name']}.index"] = row.pop("picture"), row.pop("index").int()
    return tensors, {"prompts": prompts, "class_names": list(model.class_names)}


def clip_pack(runs: dict, clip) -> tuple[dict, dict]:
    import torch
    from live_graphs import image_graph, text_graph
    from live_prompts import clip_frame
    from open_clip.tokenizer import default_bpe

    import vpkit

    run = runs["04_on_tiny"]
    lines = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")
    merges = lines[1 : 49152 - 256 - 2 + 1]  # as `SimpleTokenizer` reads them
    test = vpkit.load_dataset("icons", "test", size=clip.image_size)
    shown = torch.tensor([int(torch.where(test.labels == test.class_names.index(name))[0][0]) for name in SHOWN_ICONS])
    rows = torch.where(clip.known_tokens)[0]
    tensors = {
        "image": kept_graph("tiny_image", lambda: image_graph(clip)),
        "text": kept_graph("tiny_text", lambda: text_graph(clip)),
        "merges": "\n".join(merges).encode(),
        "token_rows": rows.int(),
        "token_embedding": clip.embed(rows).half(),
        "frame": clip_frame(run, clip),
        "pictures": test[shown].images.permute(0, 2, 3, 1),
    }
    model = {
        "image_size": clip.image_size, "embed_dim": clip.embed_dim, "context_length": clip.context_length,
        "logit_scale": float(clip.logit_scale), "template": run.parameters["template"],
        "picture_names": list(SHOWN_ICONS),
        "plain_accuracy": run.results["zero-shot"]["metrics"]["test_accuracy"],
        "frame_accuracy": run.results["VP+TP"]["metrics"]["test_accuracy"],
    }  # fmt: skip
    return tensors, {"model": model}


def names_pack(runs: dict, clip) -> tuple[dict, dict]:
    import vpkit
    from vpkit.prompts.name_strips import render_class_names

    run = runs["05_on_icons"]
    names = vpkit.load_dataset(run.parameters["dataset"], "test", size=clip.image_size).class_names
    height = round(run.parameters["strip_ratio"] * clip.image_size)
    strips = render_class_names(names, clip.image_size, height).permute(0, 2, 3, 1)
    tensors = {"context": run.states["LoGoPrompt"]["prompt.context"], "strips": strips, "font": strip_font()}
    said = {key: run.results[method]["metrics"] for key, method in (("plain", "zero-shot"), ("trained", "LoGoPrompt"))}
    told = {
        "class_names": list(names), "strip_height": height, "candidates": run.parameters["num_candidates"],
        "n_test": said["plain"]["n_test"],
        "called_as_written": {key: metrics["called_as_written"] for key, metrics in said.items()},
    }  # fmt: skip
    return tensors, {"logoprompt": told}


def look_pack(runs: dict) -> tuple[dict, dict]:
    import torch
    from live_graphs import attention_graph
    from live_prompts import dual_prompt

    from vpkit.datasets import icon_pairs

    run = runs["06_on_icons"]
    classifier = dual_prompt(run)
    clip = classifier.clip
    test = icon_pairs("test", 8, clip.image_size, run.parameters["seed"]).images
    shown = torch.arange(3, len(test), len(test) // SHOWN_PAIRS)[:SHOWN_PAIRS]
    graph = attention_graph(classifier)  # holds what was learned: made anew each time
    told = {
        "class_names": list(test.class_names), "image_size": clip.image_size,
        "grid": round((clip.image_transformer().positional_embedding.shape[0] - 1) ** 0.5),
        "picture_names": [f"{test.class_names[t]} and another" for t in test.labels[shown].tolist()],
    }  # fmt: skip
    return {"graph": graph, "pictures": test[shown].images.permute(0, 2, 3, 1)}, {"dpt": told}


def kept_graph(name: str, make: Callable[[], bytes]) -> bytes:
    """A frozen network's graph, made once for this version of torch and of what makes it."""
    import torch

    made_by = (ROOT / "tools" / "live_graphs.py").read_bytes() + torch.__version__.encode()
    weights = resources.files("vpkit") / "data" / "clip" / "tiny.safetensors"
    digest = hashlib.sha256(made_by + hashlib.sha256(weights.read_bytes()).digest()).hexdigest()[:16]
    path = OUT / "graphs" / f"{name}-{digest}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
    return path.read_bytes()


def strip_font() -> bytes:
    """The letters of DejaVu Sans that a strip may have."""
    from fontTools import subset

    from vpkit.prompts.name_strips import _default_font

    logging.getLogger("fontTools.subset").setLevel(logging.ERROR)  # of tables that no browser reads
    font = subset.load_font(str(_default_font()), options := subset.Options(layout_features=["kern"]))
    cut = subset.Subsetter(options)
    cut.populate(unicodes=LETTERS)
    cut.subset(font)
    subset.save_font(font, out := BytesIO(), options)
    return out.getvalue()


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tools"))
    sys.exit(main())
