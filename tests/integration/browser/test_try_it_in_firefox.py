"""The page *Try it* in Firefox: the same answers as in Chromium, whose own are compared with PyTorch's."""

import json
import os
import shutil
from base64 import b64encode

import numpy as np
import pytest
import torch
from built_pages import HTML
from firefox import Firefox
from PIL import Image
from test_try_it import FOLDER, PARTS, png, runs, tiny

import vpkit
from vpkit.datasets.source import fitted
from vpkit.methods import clip_vp
from vpkit.prompts import PatchPrompt

PROGRAM = next(filter(None, map(shutil.which, ("firefox-esr", "firefox"))), None)

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason="no Firefox on this machine: apt-get install firefox-esr"),
    pytest.mark.skipif(
        not (FOLDER / "page.js").is_file() and os.environ.get("VPKIT_LIVE") != "required",
        reason="the page's models were not made: make live",
    ),
    pytest.mark.xdist_group("firefox"),
]


@pytest.fixture(scope="module")
def page():
    """The page with all parts started and one answer in each, 390 pixels wide."""
    with Firefox(PROGRAM) as firefox:
        firefox.open(HTML / "try_it.html", 390)
        for part in PARTS:
            box = f"[data-live={part}]"
            firefox.evaluate(f"document.querySelector('{box} .live-start').click()")
            firefox.wait_for(f"{box}[data-ready], {box} .live-wrong")
            if part == "digit":
                firefox.evaluate(f"""(() => {{
                    const test = [...document.querySelectorAll('{box} select')].find(s => s.value === '');
                    test.value = '3';
                    test.dispatchEvent(new Event('change'));
                }})()""")
            else:
                firefox.evaluate(f"document.querySelector('{box} .live-thumbnails button').click()")
            firefox.wait_for(f"{box}[data-answers], {box} .live-wrong")
        yield firefox


def ask(page, question: str, given: dict, change: str = "given"):
    text = f"vpkitLive.ask({json.dumps(question)}, ((given) => {change})({json.dumps(given)}))"
    plain = "(key, value) => (ArrayBuffer.isView(value) ? [...value] : value)"
    return json.loads(page.evaluate(f"(async () => JSON.stringify(await {text}, {plain}))()"))


def test_every_part_answers_and_fits(page):
    said = page.evaluate("[...document.querySelectorAll('[data-live] [role=status]')].map((line) => line.textContent)")
    assert len(said) == len(PARTS)
    for text, wanted in zip(
        said, ("Without the prompt", "cat", "LoGoPrompt's decision", "Zero-shot says"), strict=True
    ):
        assert wanted in text
    assert page.evaluate("document.querySelectorAll('.live-wrong').length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 391


@torch.no_grad()
def test_digits_are_answered_as_pytorch_answers_them(page):
    frozen = vpkit.load_frozen("efficientnet_lite0")
    prompt = PatchPrompt(96, 83, "fixed", frozen.std)
    prompt.pixels.data = runs()["01_visual_prompting"].states["fixed_patch"]["prompt.pixels"]
    small = vpkit.load_dataset("mnist5k", "test", size=28, subset=10)
    wanted = frozen(prompt(small.resized(96).images.float() / 255))[:, :10]
    for image, logits in zip(small.images, wanted, strict=True):
        given = {"grey": image[0].flatten().tolist(), "prompt": "fixed patch", "strength": 1}
        found = torch.tensor(ask(page, "digit", given, "({...given, grey: Uint8Array.from(given.grey)})")["logits"])
        assert torch.allclose(found, logits, atol=0.1)
        assert int(found.argmax()) == int(logits.argmax())


@torch.no_grad()
def test_a_picture_is_read_and_named_as_in_pytorch(page):
    names, template = ["cat", "umbrella", "star", "house"], "a photo of a {}."
    test = vpkit.load_dataset("icons", "test", size=96, subset=66)
    picture = Image.fromarray(test.images[7].permute(1, 2, 0).numpy()).resize((231, 177))
    blob = "new Blob([Uint8Array.from(atob(given.data), (letter) => letter.charCodeAt(0))])"
    given = {"data": b64encode(png(picture)).decode(), "side": 96}
    rgb = ask(page, "picture", given, f"({{side: given.side, blob: {blob}}})")["rgb"]
    seen = fitted(picture, 96)
    assert np.abs(np.array(rgb) - seen.ravel().astype(int)).max() == 0
    asked = {"rgb": rgb, "names": names, "templates": [template], "frame": False}
    found = torch.tensor(ask(page, "ask", asked, "({...given, rgb: Uint8Array.from(given.rgb)})")["logits"])
    image = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float() / 255
    assert torch.allclose(found, clip_vp.text_prompt(tiny(), names, template)(image)[0], atol=0.05)


def test_no_connection_is_allowed(page):
    directive = page.evaluate("""new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
        fetch("http://127.0.0.1:9/").catch(() => {});
    })""")
    assert directive == "connect-src"


def test_a_file_that_is_no_picture_is_refused(page):
    said = page.evaluate(
        "vpkitLive.ask('picture', {blob: new Blob(['no picture']), side: 96}).catch((error) => error.message)"
    )
    assert "not a picture that your browser can decode" in said
