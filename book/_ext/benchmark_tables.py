"""Prints the stored benchmark results, so that the page on speed cannot disagree with what was measured."""

import json

from book_tables import ROOT, table_of
from docutils.parsers.rst import Directive

RESULTS = ROOT / "benchmarks" / "results"


def newest(ending: str) -> dict | None:
    """The newest results file with this ending, such as `cpu.json`; None if nothing was measured."""
    files = sorted(RESULTS.glob(f"*-{ending}"))
    return json.loads(files[-1].read_text(encoding="utf-8")) if files else None


def cases(found: dict) -> tuple:
    rows = []
    for name, variants in found["cases"].items():
        ours = variants["vpkit"]["seconds"]["median"]
        for variant, values in variants.items():
            seconds = values["seconds"]
            spread = f"{_short(seconds['low'])} to {_short(seconds['high'])}"
            factor = "" if variant == "vpkit" else f"{seconds['median'] / ours:.1f}"
            accuracy = f"{100 * values['accuracy']['median']:.1f}" if "accuracy" in values else ""
            peak = f"{values['peak_mb']['median'] / 1024:.1f}"
            rows.append((name, variant, f"{_short(seconds['median'])} ({spread})", factor, accuracy, peak))
    return ("what", "variant", "seconds (range)", "times ours", "accuracy, %", "peak memory, GB"), rows


def hardware(found: dict) -> tuple:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)
    where = found["hardware"]["gpu"] or f"{found['hardware']['processor']}, {found['hardware']['threads']} threads"
    return ("date", "hardware", "versions"), [(found["date"], where, versions)]


def mapping(found: dict) -> tuple:
    rows = []
    for row in found["frequency mapping, ms"]:
        times = [f"{row[k]['median']:.1f} ({row[k]['low']:.1f} to {row[k]['high']:.1f})" for k in ("vpkit", "scan")]
        factor = f"{row['scan']['median'] / row['vpkit']['median']:.0f}"
        rows.append((f"{row['sources']:,} x {row['targets']}", *times, factor))
    return ("source x target classes", "ours, ms", "scan for every class, ms", "times ours"), rows


def peak(found: dict) -> tuple:
    rows = []
    for name, variants in found["cases"].items():
        values = {key: value["median"] for key, value in variants["vpkit"].items()}
        if "gflops" in values:
            peaks = (values["matmul_gflops"], values["convolution_gflops"])
            shares = [f"{100 * values['gflops'] / reached:.0f}" for reached in peaks]
            speeds = [f"{x:,.0f}" for x in (values["images_per_second"], values["gflops"], *peaks)]
            rows.append((name, *speeds, *shares))
    columns = ("images/s", "GFLOP/s", "large matmul", "large convolution", "% of matmul", "% of convolution")
    return ("what", *columns), rows


def growth(found: dict) -> tuple:
    rows = []
    for name, values in found["growth"].items():
        points = ", ".join(f"{n}: {_short(value)}" for n, value in values["points"].items())
        rows.append((name.replace("peak_mb", "peak MB"), points, f"{values['slope']:.2f}"))
    return ("what", "measured", "log-log slope"), rows


def settings(found: dict) -> tuple:
    usual = found["settings"][0]  # what vpkit does is measured first
    columns = ("batch", "channels_last", "bf16", "threads")
    changes = {
        "batch 16": {},
        **{f"batch {n}": {"batch": n} for n in (4, 8, 32, 64)},
        "channels first": {"channels_last": False},
        "bf16": {"bf16": True},
        "one thread": {"threads": 1},
    }
    speeds = {(r["model"], *(r[c] for c in columns)): f"{r['images_per_second']:.0f}" for r in found["settings"]}
    wanted = [tuple((usual | change)[c] for c in columns) for change in changes.values()]
    models = dict.fromkeys(row["model"] for row in found["settings"])
    return ("model", *changes), [(model, *(speeds.get((model, *key), "") for key in wanted)) for model in models]


def estimates(found: dict) -> tuple:
    """Minutes of an ILM-VP run at 224 px, from images a second at 112 px (see the page that prints this)."""
    sizes = {"DTD": 2820, "Flowers102": 4093, "EuroSAT": 13_500, "SUN397": 15_888, "CIFAR100": 50_000}
    speeds = {r["model"]: r["images_per_second"] for r in found["settings"] if r["batch"] == 32}
    rows = [
        (name, f"{n:,}", *(f"{200 * 1.4 * n * 4 / speeds[model] / 60:,.0f}" for model in ("resnet18", "resnet50")))
        for name, n in sizes.items()
    ]
    return ("data set", "training images", "ResNet-18, estimated min", "ResNet-50, estimated min"), rows


def busy_steps(found: dict) -> tuple:
    """A prompt step beside endless loops, in each setting of OpenMP."""
    loops = f"images_per_second_{found['loops']}"
    speeds = ("images_per_second_0", "images_per_second_1", loops)
    columns = ("setting", "quiet", "beside one loop", f"beside {found['loops']} loops", "times slower")
    rows = [(r["setting"], *(f"{r[s]:.0f}" for s in speeds), f"{r['ratio']:.1f}") for r in found["steps"]]
    return columns, rows


def busy_ratios(found: dict) -> tuple:
    """Whole chapters, and the book, quiet and beside one endless loop a core."""
    columns = ("what", "quiet, s", f"beside {found['loops']} loops, s", "times slower")
    return columns, [
        (r["what"], f"{r['quiet_seconds']:.0f}", f"{r['busy_seconds']:.0f}", f"{r['ratio']:.1f}")
        for r in found["ratios"]
    ]


def lanes(found: dict) -> tuple:
    """What `make book`, `make test` and `make check` took, before and after chapters ran side by side."""
    rows = [(f"`make {r['command']}`", _clock(r["before"]), _clock(r["after"])) for r in found["lanes"]]
    return ("command", "one after the other", "side by side"), rows


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


PARTS = {
    f.__name__: f for f in (cases, hardware, mapping, peak, growth, settings, estimates, busy_steps, busy_ratios, lanes)
}


class BenchmarkTable(Directive):
    """`{benchmark-table} PART FILE-ENDING`: one part of the newest results; one line if there are none."""

    required_arguments = 2

    def run(self):
        part, ending = self.arguments
        found = newest(ending)
        if found is None:
            return table_of(self, ("",), [("Not measured.",)])
        return table_of(self, *PARTS[part](found))


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def setup(app):
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"parallel_read_safe": True}
