"""The page *Try it* in headless Chromium: what it answers, beside PyTorch; what it refuses; that nothing leaves it."""

import os
import sys
import threading
from base64 import b64encode
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import numpy as np
import pytest
import torch
from built_pages import HTML, pages
from PIL import Image
from test_built_book import violations
from torch import nn

import vpkit
from vpkit.datasets.source import fitted
from vpkit.methods import DualPromptClassifier, clip_vp
from vpkit.methods.logoprompt import reselect
from vpkit.prompts import ExpandPrompt, PadPrompt, PatchPrompt, paste, render_class_names
from vpkit.prompts.context import ContextPrompt

ROOT = HTML.parents[3]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]
import live_prompts  # noqa: E402
from print_book import find_chromium  # noqa: E402

from live import IN_CHAPTERS  # noqa: E402

FOLDER = HTML / "_static" / "live"
PARTS = ("digit", "clip", "write", "look")
# Chromium is given a minute for what takes seconds: tests measure no time, and other processes may have the cores.
PATIENCE = 120_000

pytestmark = [
    pytest.mark.skipif(
        not (FOLDER / "page.js").is_file() and os.environ.get("VPKIT_LIVE") != "required",
        reason="the page's models were not made: make live",
    ),
    pytest.mark.xdist_group("try_it.html"),
]


def start(page, *parts):
    """Presses the buttons of these parts and waits until they are there."""
    for part in parts:
        section = page.locator(f"[data-live={part}]")
        section.locator(".live-start").click()
        page.wait_for_selector(f"[data-live={part}][data-ready]", timeout=PATIENCE)
    return page.locator(f"[data-live={parts[-1]}]")


def said(section) -> str:
    return section.locator("[role=status]").inner_text()


def wait_for(section, text: str):
    section.locator("[role=status]").filter(has_text=text).wait_for(timeout=PATIENCE)


@pytest.fixture(scope="module")
def live(browser):
    """The page with all parts started, for tests that only ask."""
    page = browser.new_context().new_page()
    page.goto(f"file://{HTML / 'try_it.html'}", wait_until="load")
    start(page, *PARTS)
    yield page
    page.context.close()


def ask(page, question, **given):
    """A question to the worker; lists of numbers named in `bytes` become bytes there."""
    return page.evaluate(
        """async ([question, given]) => {
            for (const [name, value] of Object.entries(given))
                if (value && value.bytes) given[name] = Uint8Array.from(value.bytes);
            const found = await vpkitLive.ask(question, given);
            for (const [name, value] of Object.entries(found)) if (ArrayBuffer.isView(value)) found[name] = [...value];
            return found;
        }""",
        [question, given],
    )


def bytes_of(array) -> dict:
    return {"bytes": np.asarray(array).ravel().tolist()}


@cache
def runs():
    return live_prompts.finished_runs()


@cache
def tiny():
    return vpkit.load_clip("tiny")


def png(image: Image.Image) -> bytes:
    image.save(out := BytesIO(), "PNG")
    return out.getvalue()


def read(page, data: bytes, side: int) -> list[int]:
    """A file's pixels as the page reads them."""
    found = page.evaluate(
        """async ([data, side]) => {
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            const { rgb } = await vpkitLive.ask("picture", { blob: new Blob([bytes]), side });
            return [...rgb];
        }""",
        [b64encode(data).decode(), side],
    )
    return found


def icons(count: int):
    test = vpkit.load_dataset("icons", "test", size=96, subset=66)
    return test[torch.linspace(0, len(test) - 1, count).long()]


@torch.no_grad()
@pytest.mark.parametrize(("name", "count"), [("fixed patch", 50), ("padding", 15), ("ILM", 15)])
def test_digits_are_answered_as_pytorch_answers_them(live, name, count):
    frozen = vpkit.load_frozen("efficientnet_lite0")
    made = {
        "padding": (PadPrompt(96, 24, frozen.std), "01_visual_prompting", "padding"),
        "fixed patch": (PatchPrompt(96, 83, "fixed", frozen.std), "01_visual_prompting", "fixed_patch"),
        "ILM": (ExpandPrompt(48, 96), "03_on_digits", "ILM"),
    }
    prompt, run, state = made[name]
    picture, index = live_prompts.pixel_prompt(runs()[run].states[state], prompt)
    small = vpkit.load_dataset("mnist5k", "test", size=28, subset=count)
    large = vpkit.load_dataset("mnist5k", "test", size=prompt.image_size, subset=count) if name == "ILM" else small
    images = large.resized(prompt.image_size).images.float() / 255
    wanted = frozen(prompt(images))[:, index]
    bare = frozen(small.resized(96).images.float() / 255)
    assert len(wanted) == count
    for i, image in enumerate(small.images):
        found = ask(live, "digit", grey=bytes_of(image[0]), prompt=name, strength=1)
        assert torch.allclose(torch.tensor(found["logits"]), wanted[i], atol=0.1)
        assert int(torch.tensor(found["logits"]).argmax()) == int(wanted[i].argmax())
        if name != "ILM":  # enlarged by another rule
            assert found["without"][0]["class"] == int(bare[i].argmax())
    half = ask(live, "digit", grey=bytes_of(small.images[0, 0]), prompt=name, strength=0.5)
    placed = prompt(images[:1]) - 0.5 * picture
    assert torch.allclose(torch.tensor(half["logits"]), frozen(placed)[0, index], atol=0.1)


@torch.no_grad()
def test_clip_reads_and_sees_as_in_pytorch(live):
    clip, template = tiny(), "This is a photo of a {}."
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in icons(50).images]
    generator = np.random.default_rng(0)
    frame = live_prompts.clip_frame(runs()["04_on_tiny"], clip)
    names = list(vpkit.load_dataset("icons", "test", size=96, subset=66).class_names)
    zero_shot = clip_vp.text_prompt(clip, names, template)
    for i, picture in enumerate(pictures):
        picture = picture.resize(tuple(generator.integers(40, 300, 2)))  # another size than it takes
        seen = fitted(picture, 96)
        rgb = read(live, png(picture), 96)
        assert rgb == seen.ravel().tolist()
        image = torch.from_numpy(seen.copy()).permute(2, 0, 1)[None].float() / 255
        framed = i % 2 == 1
        wanted = zero_shot(image + frame if framed else image)[0]
        found = ask(live, "ask", rgb={"bytes": rgb}, names=names, templates=[template], frame=framed)
        assert torch.allclose(torch.tensor(found["logits"]), wanted, atol=0.05)
        assert int(torch.tensor(found["logits"]).argmax()) == int(wanted.argmax())
        assert sum(found["probabilities"]) == pytest.approx(1)


@torch.no_grad()
def test_templates_are_averaged(live):
    clip, names = tiny(), ["cat", "star", "music note"]
    templates = ["a photo of a {}.", "a drawing of a {}.", "the {}"]
    picture = icons(1).images
    text = torch.stack([clip.encode_text([t.format(name) for name in names]) for t in templates]).mean(0)
    wanted = clip.logit_scale * clip.encode_image(picture.float() / 255) @ nn.functional.normalize(text, dim=1).T
    rgb = bytes_of(picture[0].permute(1, 2, 0))
    found = ask(live, "ask", rgb=rgb, names=names, templates=templates, frame=False)
    assert torch.allclose(torch.tensor(found["logits"]), wanted[0], atol=0.05)


@torch.no_grad()
def test_a_word_is_weighed_as_logoprompt_weighs_it(live):
    clip, run = tiny(), runs()["05_on_icons"]
    test = icons(12)
    names = test.class_names
    strips = render_class_names(names, 96, 14)
    prompt = ContextPrompt(clip, names, 4, words="a photo of a", class_specific=True)
    prompt.context.data = run.states["LoGoPrompt"]["prompt.context"]
    learned, plain_text = prompt(), clip.encode_text([f"a photo of a {name}." for name in names])

    def log_p(images, text):
        return (clip.logit_scale * clip.encode_image(images) @ text.T).log_softmax(1)

    followed = 0
    for i, image in enumerate(test.images):
        word = (i * 7 + 3) % len(names)
        written = paste(image[None].float() / 255, strips[word][None], torch.tensor([5]))

        def pasted(candidates, written=written):
            named = paste(written.expand(5, -1, -1, -1), strips[candidates[0]], torch.full((5,), 82))
            return log_p(named, learned).gather(1, candidates.T).T

        wanted = reselect(log_p(written, learned), pasted, 5)
        given = {"rgb": bytes_of(image.permute(1, 2, 0)), "strip": bytes_of(strips[word].permute(1, 2, 0)), "top": 5}
        found = ask(live, "write", **given, template="a photo of a {}.")
        assert [row["class"] for row in found["rows"]] == wanted.candidates[0].tolist()
        scores = torch.tensor([row["max"] for row in found["rows"]])
        assert torch.allclose(scores, wanted.scores[0].exp(), atol=0.01)
        assert found["prediction"] == int(wanted.prediction)
        zero_shot = log_p(written, plain_text)[0].exp()
        assert torch.allclose(torch.tensor(found["zeroShot"]), zero_shot, atol=0.01)
        followed += int(zero_shot.argmax()) == word
    assert followed >= 3  # the word was there to be read


@torch.no_grad()
def test_attention_maps_are_the_packages(live):
    classifier: DualPromptClassifier = live_prompts.dual_prompt(runs()["06_on_icons"])
    clip = classifier.clip
    for image in vpkit.datasets.icon_pairs("test", 8, 96, 0).images[torch.arange(0, 264, 26)].images:
        x = image[None].float() / 255
        found = ask(live, "look", rgb=bytes_of(image.permute(1, 2, 0)))
        assert torch.allclose(torch.tensor(found["logits"]), classifier(x)[0], atol=0.1)
        assert found["chosen"] == classifier.choose(clip.encode_image(x))[0].tolist()
        for name, encode in (("plainMap", clip.encode_image), ("map", classifier)):
            wanted = vpkit.analysis.class_attention(clip, encode, x)[0].flatten()
            assert torch.allclose(torch.tensor(found[name]), wanted, atol=1e-3)
        maps = [list(one.values()) if isinstance(one, dict) else one for one in found["candidateMaps"]]
        assert all(sum(one) == pytest.approx(1, abs=1e-3) for one in maps)


def test_only_pages_with_a_part_load_it_and_only_when_asked(open_page):
    page, requested = open_page("try_it.html"), []
    page.on("request", lambda request: requested.append(request.url))
    assert page.locator("[data-live] .live-start").count() == len(PARTS)
    before = page.evaluate("performance.getEntriesByType('resource').map(r => r.name)")
    scripts = {url.partition("?")[0].rpartition("/")[2] for url in before if "/_static/live/" in url}
    assert scripts <= {"page.js", "live.css"}
    for part in PARTS:
        section = page.locator(f"[data-live={part}]")
        packs = ["worker", "runtime", *section.get_attribute("data-packs").split()]
        size = sum((FOLDER / f"{pack}.js").stat().st_size for pack in packs) / 1e6
        assert f"{size:.1f} MB" in section.locator(".live-start").inner_text()
    assert requested == []
    named = [name for name in pages() if "_static/live" in (HTML / name).read_text(encoding="utf-8")]
    assert named == sorted([*(f"{name}.html" for name in IN_CHAPTERS), "try_it.html"])


@pytest.mark.parametrize(
    ("chapter", "part"), sorted({"01": "digit", "04": "clip", "05": "write", "06": "look"}.items())
)
def test_a_chapter_holds_its_part(open_page, chapter, part):
    (name,) = (name for name in IN_CHAPTERS if name.startswith(f"notebooks/{chapter}"))
    page = open_page(f"{name}.html")
    section = start(page, part)
    if part == "digit":
        section.get_by_label("or a test digit").select_option("3")
        wait_for(section, "Without the prompt")
    else:
        section.locator(".live-thumbnails button").first.click()
        page.wait_for_selector(f"[data-live={part}][data-answers]", timeout=PATIENCE)
    assert page.complaints == []


def test_after_loading_nothing_is_asked_for_and_nothing_could_be(open_page):
    page = open_page("try_it.html")
    start(page, *PARTS)
    asked = []
    page.context.on("request", lambda request: asked.append(request.url))
    digit = page.locator("[data-live=digit]")
    digit.get_by_label("or a test digit").select_option("3")
    wait_for(digit, "Without the prompt")
    for part in PARTS[1:]:
        section = page.locator(f"[data-live={part}]")
        section.locator(".live-thumbnails button").first.click()
        page.wait_for_selector(f"[data-live={part}][data-answers]", timeout=PATIENCE)
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == []
    assert page.complaints == []
    tried = """async (address) => {
        const refused = new Promise((resolve) =>
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective)));
        fetch(address).catch(() => {});
        return refused;
    }"""
    for address in ("http://127.0.0.1:9/", "https://example.org/", "file:///etc/hostname"):
        assert page.evaluate(tried, address) == "connect-src"
    with page.expect_event("requestfailed") as failed:
        page.evaluate("new Image().src = 'http://127.0.0.1:9/x.png'")
    assert failed.value.failure == "csp"


def test_work_is_done_in_a_worker_and_let_go_again(open_page):
    page = open_page("try_it.html")
    assert page.workers == []
    start(page, "digit")
    assert len(page.workers) == 1
    assert page.evaluate("typeof window.ort") == "undefined"
    page.get_by_role("button", name="Let go of all models").click()
    page.wait_for_timeout(500)
    assert page.workers == []
    start(page, "digit")  # and can be had again
    assert len(page.workers) == 1


def test_what_cannot_be_answered_gets_a_sentence(open_page, tmp_path):
    page = open_page("try_it.html")
    digit = start(page, "digit")
    digit.get_by_role("button", name="Ask").click()
    wait_for(digit, "The canvas is empty")
    clip = start(page, "clip")
    clip.get_by_role("button", name="Ask", exact=True).click()
    wait_for(clip, "There is no picture yet")
    file = clip.locator("input[type=file]")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG this is no picture at all, though its name says so")
    (tmp_path / "text.jpg").write_text("nor is this")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    Image.new("L", (12_000, 9_000)).save(tmp_path / "huge.jpg")
    Image.new("1", (20_000, 10)).save(tmp_path / "long.png")
    for name, sentence in (
        ("broken.png", "not a picture that your browser can decode"),
        ("text.jpg", "not a picture that your browser can decode"),
        ("huge.png", "100 megapixels"),
        ("huge.jpg", "108 megapixels"),
        ("long.png", "16384 pixels a side"),
    ):
        file.set_input_files(tmp_path / name)
        wait_for(clip, sentence)
    clip.locator(".live-thumbnails button").first.click()
    page.wait_for_selector("[data-live=clip][data-answers]", timeout=PATIENCE)
    words = clip.get_by_label("class names")
    known = list(vpkit.load_dataset("icons", "test", size=96, subset=66).class_names)
    for names, sentence in (
        (", ".join(known[:30]), "Of 30 names the 12 likeliest are shown."),
        (", ".join(f"n{i}" for i in range(101)), "101 class names; this page takes up to 100"),
        ("", "There is no class name"),
        ("cat, photosynthesis", "never met “photosynthesis”"),
    ):
        words.fill(names)
        clip.get_by_role("button", name="Ask", exact=True).click()
        wait_for(clip, sentence)
    words.fill("cat, star")
    clip.get_by_label("templates").fill("no place for it")
    clip.get_by_role("button", name="Ask", exact=True).click()
    wait_for(clip, "needs exactly one {}")
    write = start(page, "write")
    write.locator(".live-thumbnails button").first.click()
    for word, sentence in (("x" * 60, "too long for a strip"), ("日本", "The strip's font has no 日 本")):
        write.get_by_label("a word").fill(word)
        write.get_by_role("button", name="Ask", exact=True).click()
        wait_for(write, sentence)
    assert page.complaints == []  # each was expected, none an error of the page


def test_a_photo_of_a_telephone_is_read(open_page, tmp_path):
    """Twelve megapixels, turned as its EXIF says, with a colour in each corner."""
    photo = Image.new("RGB", (4000, 3000), "white")
    photo.paste((200, 30, 30), (0, 0, 2000, 1500))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right
    photo.save(tmp_path / "photo.jpg", exif=exif)
    page = open_page("try_it.html")
    clip = start(page, "clip")
    clip.locator("input[type=file]").set_input_files(tmp_path / "photo.jpg")
    page.wait_for_selector("[data-live=clip][data-answers]", timeout=PATIENCE)
    rgb = np.array(read(page, (tmp_path / "photo.jpg").read_bytes(), 96)).reshape(96, 96, 3)
    assert abs(rgb[20, 80].astype(int) - (200, 30, 30)).max() < 6  # top right
    assert rgb[80, 80].min() > 250
    assert rgb[20, 10].min() > 250


def test_everything_can_be_done_by_keyboard(open_page):
    page = open_page("try_it.html")
    digit = page.locator("[data-live=digit]")
    digit.locator(".live-start").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-live=digit][data-ready]", timeout=PATIENCE)
    digit.locator(".live-paper").focus()
    for key in ["ArrowUp"] * 8 + [" "] + ["ArrowDown"] * 16 + [" "]:  # a one
        page.keyboard.press(key)
    wait_for(digit, "Without the prompt")
    first = said(digit)
    digit.get_by_label("strength").focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    wait_for(digit, "at strength 0:")
    assert said(digit) != first
    reached, wanted = set(), {"prompt", "strength", "or a test digit", "Clear", "Ask"}
    digit.locator(".live-paper").focus()
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.closest('label')?.querySelector('span') ?? document.activeElement).textContent"
            )
        )
    assert wanted <= reached


def test_a_drawing_by_pointer_is_answered(open_page):
    page = open_page("try_it.html", 390)
    digit = start(page, "digit")
    digit.locator(".live-paper").scroll_into_view_if_needed()
    box = digit.locator(".live-paper").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 40, steps=5)
    page.mouse.up()
    wait_for(digit, "Without the prompt")
    assert digit.locator(".live-arrows svg").get_attribute("aria-label").startswith("The mapping: 0 is read from")
    digit.get_by_role("button", name="Clear").click()
    wait_for(digit, "The canvas is empty")


@pytest.mark.parametrize("width", [390, 1280])
def test_started_parts_fit_and_are_accessible(open_page, width):
    page = open_page("try_it.html", width)
    start(page, *PARTS)
    page.locator("[data-live=digit]").get_by_label("or a test digit").select_option("3")
    for part in PARTS[1:]:
        page.locator(f"[data-live={part}] .live-thumbnails button").nth(1).click()
    for part in PARTS:
        page.wait_for_selector(f"[data-live={part}][data-answers]", timeout=PATIENCE)
    assert page.evaluate("document.documentElement.scrollWidth") <= width + 1
    over = """(width) => [...document.querySelectorAll('[data-live] *')]
        .filter(e => e.getBoundingClientRect().right > width + 1 && !e.closest('.live-scrolled'))
        .map(e => e.outerHTML.slice(0, 100))"""
    assert page.evaluate(over, width) == []
    assert violations(page) == []


@pytest.mark.parametrize("allowed", [True, False])
def test_the_camera_is_used_when_asked_for_and_allowed(browser, allowed):
    options = ["--use-fake-device-for-media-stream"] + ["--use-fake-ui-for-media-stream"] * allowed
    program = find_chromium()
    with_camera = browser.browser_type.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", *options])
    try:
        page = with_camera.new_page()
        page.goto(f"file://{HTML / 'try_it.html'}", wait_until="load")
        clip = start(page, "clip")
        assert page.locator("video").count() == 0
        clip.get_by_role("button", name="Use the camera").click()
        if allowed:
            page.wait_for_selector("video", timeout=PATIENCE)
            page.wait_for_timeout(1000)  # for a first frame
            clip.get_by_role("button", name="Take the picture").click()
            page.wait_for_selector("[data-live=clip][data-answers]", timeout=PATIENCE)
            assert page.locator("video").count() == 0
        else:
            wait_for(clip, "There is no camera that this page may use")
    finally:
        with_camera.close()


def test_a_static_host_will_do(browser):
    """The same files over HTTP, as a telephone gets them."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(HTML))
    handler.log_message = lambda *_: None
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = browser.new_context().new_page()
    try:
        page.goto(f"http://127.0.0.1:{server.server_port}/try_it.html", wait_until="load")
        digit = start(page, "digit")
        digit.get_by_label("or a test digit").select_option("3")
        wait_for(digit, "Without the prompt")
    finally:
        page.context.close()
        server.shutdown()
