"""Leaves out of every page the script constants of sphinx-thebe, which jupyter-book puts in twice: an error on each page.

No page of this book talks to a kernel; what is interactive was drawn in advance.
"""


def without_thebe(app, pagename, templatename, context, doctree):
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if "thebe" not in f"{s} {getattr(s, 'attributes', {})}".lower()]


def setup(app):
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True}
