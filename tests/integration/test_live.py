"""The page *Try it* without a browser: its pure parts against the package, its packages, its place in the book."""

import json
import random
import re
import shutil
import subprocess
import sys
import unicodedata
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vpkit
from vpkit.datasets.batches import resized
from vpkit.datasets.source import fitted
from vpkit.prompts import clip_templates, fill_templates

ROOT = Path(__file__).resolve().parents[2]
LIVE = ROOT / "live"
BIOME = ROOT / "_build" / "live" / "npm" / "node_modules" / ".bin" / "biome"
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]
import build_live  # noqa: E402

import live  # noqa: E402

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")


def asked(*questions):
    """What the page's own modules answer."""
    command = ["node", LIVE / "tools" / "parity.js"]
    finished = subprocess.run(command, input=json.dumps(questions), capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout)


@needs_node
def test_the_pure_parts_pass_their_own_tests():
    tests = sorted((LIVE / "test").glob("*.test.js"))
    finished = subprocess.run(["node", "--test", *tests], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout[-3000:]
    assert int(re.search(r"# pass (\d+)", finished.stdout)[1]) >= 16


@pytest.mark.skipif(not BIOME.exists(), reason="make live installs the linter")
def test_the_modules_are_linted_and_formatted():
    finished = subprocess.run([BIOME, "check", "."], cwd=LIVE, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]


TYPED = [
    "a photo of a {}.", "it's the dog's, they'll've 12 cats & 3.5 m²", "Ünïcödé naïve café", "日本語のテスト", "한국어",
    "русский язык", "emoji 😀👩‍🚀 flag 🇩🇪", "curly ‘quotes’ “here” and – dashes — …", "ﬁne ﬂoor ﬀ",
    "ＦＵＬＬ　ｗｉｄｔｈ", "tab\tand\nnewline  spaces", "&lt;b&gt; &amp;amp; &#65; &#x42;",
    "<start_of_text> a <end_of_text>", "x_y-z/w\\v", "e\u0301 combined", "\u00a0no-break\u2003em", "١٢٣ ৪৫", "ß ẞ İ ı",
    "don't DON'T Don’t", "a\x00b\x07c", "''' \"\" ,,, ...!!?", "µ ™ © ½", "ſt ﬅ", "supercalifragilisticexpialidocious",
]  # fmt: skip


def random_texts(count: int) -> list[str]:
    drawn = random.Random(0)
    blocks = (0x20, 0x7E), (0xA1, 0x17F), (0x391, 0x3C9), (0x410, 0x44F)
    letters = [chr(code) for low, high in blocks for code in range(low, high)]
    letters = [letter for letter in letters if unicodedata.category(letter) != "Cf"]
    return ["".join(drawn.choices(letters + [" "] * 60, k=drawn.randint(1, 40))) for _ in range(count)]


@needs_node
def test_the_tokenizer_is_open_clips():
    import gzip

    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    theirs = SimpleTokenizer()
    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    names = [*vpkit.imagenet_names.imagenet_class_names(), *vpkit.datasets.DATASETS]
    texts = [*TYPED, *names, *fill_templates(clip_templates(), ["skull and crossbones", "Mother-in-law's tongue"])]
    # ftfy guesses that strange runs of letters were decoded wrongly, and mends them; the page does not guess
    import ftfy

    texts += [text for text in random_texts(800) if ftfy.fix_encoding(text) == text]
    (found,) = asked({"question": "tokens", "merges": merges, "texts": texts})
    different = [(t, f, theirs.encode(t)) for t, f in zip(texts, found["ids"], strict=True) if f != theirs.encode(t)]
    assert different == []
    assert len(texts) > 1500
    assert (found["start"], found["end"]) == (theirs.sot_token_id, theirs.eot_token_id)


@needs_node
def test_pictures_are_resized_to_the_bytes_of_pillow():
    generator = np.random.default_rng(0)
    questions, wanted = [], []
    for width, height, side, mode in (
        (300, 200, 96, "RGB"), (31, 97, 96, "RGB"), (97, 31, 96, "RGB"), (50, 60, 96, "RGB"), (96, 96, 96, "RGB"),
        (1, 500, 96, "RGB"), (130, 90, 56, "RGBA"), (97, 98, 96, "RGB"), (97, 99, 96, "RGB"), (150, 400, 96, "RGB"),
    ):  # fmt: skip
        pixels = generator.integers(0, 256, (height, width, len(mode)), dtype=np.uint8)
        if mode == "RGBA":
            pixels[..., 3] = generator.choice([0, 255], (height, width))
        image = Image.fromarray(pixels)
        rgba = np.asarray(image.convert("RGBA")).ravel().tolist()
        questions.append({"question": "picture", "rgba": rgba, "width": width, "height": height, "side": side})
        wanted.append(fitted(image, side).ravel().tolist())
    assert asked(*questions) == wanted


@needs_node
def test_digits_are_resized_as_the_chapters_resize_them():
    images = vpkit.load_dataset("mnist5k", "test", size=28, subset=10).images
    questions = [
        {"question": "grey", "grey": image[0].flatten().tolist(), "side": 28, "to": to, "how": how}
        for image in images for to, how in ((96, "torch"), (48, "pillow"))
    ]  # fmt: skip
    found = asked(*questions)
    for i, image in enumerate(images):
        by_torch = resized(image[None], 96)[0, 0].flatten().int()
        assert (torch.tensor(found[2 * i]) - by_torch).abs().max() <= 1  # sums in another order
        by_pillow = np.asarray(Image.fromarray(image[0].numpy()).resize((48, 48), Image.Resampling.BILINEAR))
        assert found[2 * i + 1] == by_pillow.ravel().tolist()


def test_packages_are_pinned_by_version_and_checksum_without_an_address():
    lock = json.loads((LIVE / "package-lock.json").read_text())
    packages = {name: row for name, row in lock["packages"].items() if name}
    assert {"node_modules/onnxruntime-web", "node_modules/esbuild", "node_modules/@biomejs/biome"} <= set(packages)
    assert all(row["integrity"].startswith("sha512-") for row in packages.values())
    assert not any("resolved" in row for row in packages.values())
    wanted = json.loads((LIVE / "package.json").read_text())["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    assert all(packages[f"node_modules/{name}"]["version"] == version for name, version in wanted.items())


def test_no_module_asks_for_anything_from_elsewhere():
    """Beside the policy of the page, which forbids it: the names of what would."""
    sources = {path.name: path.read_text() for path in (LIVE / "src").glob("*.js")}
    assert len(sources) > 20
    calls = re.compile(r"\bfetch\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|https?://(?!www\.w3\.org/2000/svg)")
    assert {name: calls.findall(text) for name, text in sources.items() if calls.search(text)} == {}
    assert "connect-src 'none'" in live.POLICY
    assert "http:" not in live.POLICY
    assert "https:" not in live.POLICY


def test_every_pack_that_a_part_names_is_made():
    made = set(re.findall(r'write_pack\("(\w+)"', (ROOT / "tools" / "build_live.py").read_text()))
    assert {pack for _, packs in live.PARTS.values() for pack in packs} | {"runtime"} == made
    page = (ROOT / "book" / "try_it.md").read_text()
    assert re.findall(r"```\{live\} (\w+)", page) == list(live.PARTS)


def test_a_run_is_taken_where_it_is_whole_and_no_older_than_its_chapter(monkeypatch, tmp_path):
    import os

    import live_prompts

    assert {run.chapter for run in live_prompts.RUNS.values() if not run.parameters} == set(build_live.LIVE_CHAPTERS)
    monkeypatch.setattr(live_prompts, "BUILD", tmp_path)
    name = "01_visual_prompting"
    assert set(live_prompts.missing_runs()) == set(live_prompts.RUNS)
    for place in (live_prompts.own_place(name), live_prompts.book_place(name)):
        place.states.mkdir(parents=True)
        place.results.mkdir(parents=True)
        (place.states / "padding.safetensors").touch()
        (place.results / "run.json").touch()
        assert live_prompts._newest(name) in (None, live_prompts.own_place(name))  # one state is missing here
        (place.states / "fixed_patch.safetensors").touch()
        (place.results / "run.json").touch()
        os.utime(place.results / "run.json")
        assert live_prompts._newest(name) == place
    past = (ROOT / "notebooks" / f"{name}.ipynb").stat().st_mtime - 10
    for place in (live_prompts.own_place(name), live_prompts.book_place(name)):
        os.utime(place.results / "run.json", (past, past))
    assert live_prompts._newest(name) is None


@pytest.mark.parametrize("recorded", [{}, {"prompt_size": 30}])
def test_a_runs_parameters_are_those_declared_where_its_results_name_none(monkeypatch, tmp_path, recorded):
    """As those of `make notebooks` do."""
    import live_prompts

    name = "01_visual_prompting"
    place = live_prompts.Place(tmp_path / "states", tmp_path / "results")
    place.results.mkdir()
    (place.results / "run.json").write_text(json.dumps({"method": "padding", "parameters": recorded}))
    monkeypatch.setattr(live_prompts, "read_safetensors", lambda *_: (None, {"classifier.prompt.pixels": 1}))
    found = live_prompts._read(name, place)
    assert found.parameters["canvas_size"] == 96
    assert found.parameters["prompt_size"] == recorded.get("prompt_size", 24)
    assert set(found.states) == {"padding", "fixed_patch"}


def test_without_npm_the_reason_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(build_live.shutil, "which", lambda name: None)
    monkeypatch.setattr(build_live, "OUT", tmp_path)
    monkeypatch.delenv("VPKIT_LIVE", raising=False)
    for arguments, status in ((["--optional"], 0), ([], 1)):
        monkeypatch.setattr(sys, "argv", ["build_live.py", *arguments])
        assert build_live.main() == status
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert "npm is not installed" in said
    monkeypatch.setenv("VPKIT_LIVE", "required")
    monkeypatch.setattr(sys, "argv", ["build_live.py", "--optional"])
    assert build_live.main() == 1


@pytest.mark.parametrize("made", [True, False])
def test_only_the_page_with_the_directive_gets_files_and_a_policy(monkeypatch, tmp_path, made):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    source, packs = tmp_path / "source", tmp_path / "packs"
    source.mkdir()
    packs.mkdir()
    (source / "conf.py").write_text("extensions = ['myst_parser', 'live']\nmyst_enable_extensions = ['colon_fence']\n")
    (source / "index.md").write_text("# A book\n\n```{toctree}\ntry_it\nnotebooks/05_logoprompt\n```\n")
    (source / "notebooks").mkdir()
    (source / "notebooks" / "05_logoprompt.md").write_text("# Chapter\n\nYour own: {doc}`../try_it`.\n\nAfter.\n")
    (source / "try_it.md").write_text("# Try it\n\n```{live} write\n```\n\n```{live-stop}\n```\n")
    if made:
        names = ("clip", "names", "page", "runtime", "worker")
        (packs / "manifest.json").write_text(json.dumps(dict.fromkeys(names, 1_250_000)))
        for name in (*(f"{name}.js" for name in names), "live.css"):
            (packs / name).write_text("/* */")
    monkeypatch.setattr(live, "PACKS", packs)
    out = tmp_path / "html"
    with docutils_namespace():  # so that one process may build twice
        trees = tmp_path / "trees"
        Sphinx(source, source, out, trees, "html", status=None, warning=None, warningiserror=True).build()
    page, other = ((out / f"{name}.html").read_text() for name in ("try_it", "index"))
    assert "Content-Security-Policy" not in other
    assert "_static/live" not in other
    assert ("are not in this build of the book" in page) is not made
    assert (f'content="{live.POLICY}"' in page) is made
    assert (out / "_static" / "live" / "clip.js").is_file() is made
    chapter = (out / "notebooks" / "05_logoprompt.html").read_text()
    assert ("data-live" in chapter) is (f'content="{live.POLICY}"' in chapter) is made
    if made:
        assert chapter.index("Your own") < chapter.index('data-folder="../_static/live"') < chapter.index("After.")
        assert 'data-packs="clip names" data-folder="_static/live" data-megabytes="5.0"' in page
        assert page.index("Content-Security-Policy") < page.index("<script")
        assert "data-live-stop" in page


def test_packs_that_were_not_made_have_no_size(monkeypatch, tmp_path):
    monkeypatch.setattr(live, "PACKS", tmp_path)
    assert live.sizes() == {}
    (tmp_path / "manifest.json").write_text('{"worker": 5}')
    assert live.sizes() == {"worker": 5}


def test_a_pack_is_a_script_that_holds_its_tensors(monkeypatch, tmp_path):
    import base64
    import gzip

    from safetensors.numpy import load

    monkeypatch.setattr(build_live, "PACKS", tmp_path)
    build_live.write_pack("small", {"a": torch.arange(3, dtype=torch.int32), "b": b"text"}, {"told": [1, "two"]})
    call = re.fullmatch(r'vpkitLive\.pack\("small", "([A-Za-z0-9+/=]+)"\);\n', (tmp_path / "small.js").read_text())
    data = gzip.decompress(base64.b64decode(call[1]))
    found = load(data)
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b"].tobytes() == b"text"
    assert b'"told":"[1, \\"two\\"]"' in data


def test_the_strips_font_has_the_letters_it_should():
    from fontTools.ttLib import TTFont

    letters = TTFont(BytesIO(build_live.strip_font())).getBestCmap()
    assert {ord(letter) for letter in "aZ09 é ß ż Ω я"} <= set(letters)
    assert ord("日") not in letters


@pytest.mark.slow
def test_a_graph_with_halved_weights_says_what_the_model_says():
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from live_graphs import text_graph

    clip = vpkit.load_clip("tiny")
    run = onnxruntime.InferenceSession(text_graph(clip))
    for texts in (["a cat"], ["a photo of a skull and crossbones.", "the moon", "a house"]):
        tokens = clip.tokenize(texts)
        end = tokens.argmax(1)
        embedded = clip.embed(tokens)[:, : int(end.max()) + 1]
        (found,) = run.run(None, {"embedded": embedded.numpy(), "end": end.numpy()})
        assert torch.allclose(torch.from_numpy(found), clip.encode_text(texts), atol=1e-5)


def test_a_weight_that_half_precision_cannot_hold_is_refused():
    onnx = pytest.importorskip("onnx")
    from live_graphs import halve

    def model_of(values):
        weight = onnx.numpy_helper.from_array(np.asarray(values, np.float32), "w")
        node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
        x, y = (onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [len(values)]) for n in "xy")
        return onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [weight]))

    model = model_of(np.linspace(-1, 1, 100))
    halve(model)
    onnx.checker.check_model(model)
    assert [w.data_type for w in model.graph.initializer] == [onnx.TensorProto.FLOAT16]
    assert [node.op_type for node in model.graph.node] == ["Cast", "Add"]
    with pytest.raises(ValueError, match="float16 ends at 65504"):
        halve(model_of([1e6] * 100))
    halve(model_of([-np.inf] * 100))  # a mask's
