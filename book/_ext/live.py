"""A Sphinx directive for the parts of the page *Try it*, whose files `make live` has made, or says how to make.

Parts stand in the chapters too. Only pages with a part get its script, its style and a content security policy; the
other pages load nothing.
"""

import json
import shutil
from pathlib import Path

from book_tables import ROOT, parsed
from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx import addnodes
from sphinx.util import logging

PACKS = ROOT / "_build" / "live" / "packs"
PARTS = {  # part: its packs, beside the runtime and the worker that all need
    "digit": ("Draw a digit", ["digit"]),
    "clip": ("Ask CLIP", ["clip"]),
    "write": ("Write on it", ["clip", "names"]),
    "look": ("Where it looks", ["look"]),
}
IN_CHAPTERS = {  # where a part stands in a chapter, too
    "notebooks/01_visual_prompting": "digit",
    "notebooks/03_ilm_vp": "digit",
    "notebooks/04_clip_template_mapping": "clip",
    "notebooks/05_logoprompt": "write",
    "notebooks/06_dpt": "look",
}
# No connection of any kind; what the page loads are scripts of its own folder, and what it makes itself.
POLICY = (
    "default-src 'none'; connect-src 'none'; script-src 'self' file: blob: 'unsafe-inline' 'wasm-unsafe-eval'; "
    "worker-src blob:; style-src 'self' file: 'unsafe-inline'; img-src 'self' file: data: blob:; media-src blob:; "
    "font-src 'self' file: data:; form-action 'self' file:; frame-src 'none'; object-src 'none'; base-uri 'none'"
)
MISSING = (
    "The models of this page are not in this build of the book: `make live` makes them (it needs npm, which comes with "
    "Node.js), and the next build of the book takes them in."
)


def sizes() -> dict[str, int]:
    """Bytes of each pack; {} if they were not made."""
    path = PACKS / "manifest.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def are_held(builder) -> bool:
    """Whether the book that is being built holds the models: they were made, and its pages are files of their own."""
    return builder.name == "html" and bool(sizes())


def box(env, part: str) -> nodes.raw:
    """A part of the page, for the document that is being read."""
    (title, packs), known = PARTS[part], sizes()
    env.metadata[env.docname]["live"] = "yes"
    size = sum(known[name] for name in ["worker", "runtime", *packs]) / 1e6
    folder = "../" * env.docname.count("/") + "_static/live"
    text = (
        f'<section class="vpkit-live" data-live="{part}" data-packs="{" ".join(packs)}" data-folder="{folder}" '
        f'data-megabytes="{size:.1f}" aria-label="{title}"><noscript>This part needs JavaScript.</noscript></section>'
    )
    return nodes.raw("", text, format="html")


def place_in_chapter(app, doctree) -> None:
    """Behind the chapter's link to the page: a notebook keeps the link, its page in the book has the part itself."""
    part = IN_CHAPTERS.get(app.env.docname)
    if part is None or not are_held(app.builder):
        return
    for link in doctree.findall(addnodes.pending_xref):
        if link["reftarget"].endswith("try_it"):
            paragraph = link.parent
            paragraph.parent.insert(paragraph.parent.index(paragraph) + 1, box(app.env, part))
            return


class Live(Directive):
    """`{live} PART`: a box with a button that loads a part of the page; a sentence where it cannot be."""

    required_arguments = 1

    def run(self):
        part = directives.choice(self.arguments[0], PARTS)
        env = self.state.document.settings.env
        if not are_held(env.app.builder):
            return parsed(self, [":::{note}", MISSING, ":::"])
        return [box(env, part)]


class LiveStop(Directive):
    """`{live-stop}`: the button that lets go of all that was loaded."""

    def run(self):
        return [nodes.raw("", "<p data-live-stop></p>", format="html")] if sizes() else []


def copy_packs(app) -> None:
    known = sizes()
    if app.builder.name != "html":
        return
    if not known:
        logging.getLogger(__name__).info("the page Try it is built without its models: make live makes them")
        return
    target = Path(app.outdir) / "_static" / "live"
    target.mkdir(parents=True, exist_ok=True)
    for path in [*(PACKS / f"{name}.js" for name in known), PACKS / "live.css"]:
        shutil.copy(path, target)


def add_to_page(app, pagename, templatename, context, doctree) -> None:
    if app.env.metadata.get(pagename, {}).get("live"):
        policy = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}" />'
        context["metatags"] = f"{policy}\n{context.get('metatags', '')}"
        app.add_js_file("live/page.js", loading_method="defer")
        app.add_css_file("live/live.css")


def setup(app):
    app.add_directive("live", Live)
    app.add_directive("live-stop", LiveStop)
    app.connect("builder-inited", copy_packs)
    app.connect("doctree-read", place_in_chapter)
    app.connect("html-page-context", add_to_page)
    return {"parallel_read_safe": True}
