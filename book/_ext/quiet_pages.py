"""Leaves the script constants of sphinx-thebe out of every page: jupyter-book puts them in twice, which is an error.

No page of this book talks to a kernel; what is interactive was drawn in advance.
"""


def without_thebe(app, pagename, templatename, context, doctree):
    scripts = context.get("script_files", [])
    context["script_files"] = [s for s in scripts if "thebe" not in f"{s} {getattr(s, 'attributes', {})}".lower()]


def setup(app):
    app.connect("html-page-context", without_thebe, priority=900)
    return {"parallel_read_safe": True}
