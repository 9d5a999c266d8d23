"""Change vpkit in small ways and see whether a test notices: mutation testing with cosmic-ray (make mutants).

    _build/mutants/environment/bin/python tools/mutants.py                 a seeded sample of all five areas
    _build/mutants/environment/bin/python tools/mutants.py labels pixels   two of them
    _build/mutants/environment/bin/python tools/mutants.py --survivors     again those that the table says survived

Each area of AREAS is a few files of vpkit and the tests that are to guard them; SAMPLE changes of each are drawn from
all that cosmic-ray knows (numbers, operators, comparisons, conditions, loops, decorators), made one at a time in a copy
of the repository, and the tests run until one fails. Type annotations are left alone: nothing reads them.
`results/mutants.csv` says of each what was changed and whether it was noticed.
"""

import argparse
import ast
import csv
import json
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cosmic_ray.work_db import use_db

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build" / "mutants"
TABLE = ROOT / "results" / "mutants.csv"
SAMPLE, SEED, SECONDS = 60, 0, 300
AREAS = {  # name: (files of vpkit, their tests and what else pytest is told)
    "labels": (
        "mappings/one_to_one mappings/weighted",
        "tests/mappings/test_one_to_one.py tests/mappings/test_weighted.py tests/methods/test_ilm_vp.py"
        " tests/integration/test_properties.py"
        " --deselect tests/mappings/test_one_to_one.py::test_counts_of_every_sentence_of_sun397_stay_small",
    ),
    "pixels": ("prompts/pixels", "tests/prompts/test_pixel_prompts.py tests/integration/test_properties.py"),
    "logo": (
        "methods/logoprompt prompts/name_strips prompts/context methods/coop",
        "tests/prompts/test_name_strips.py tests/prompts/test_context_prompts.py tests/integration/test_determinism.py",
    ),
    "dpt": (
        "prompts/tokens methods/dpt prompts/patch_embeddings analysis/attention",
        "tests/prompts/test_tokens.py tests/analysis/test_attention.py tests/integration/test_determinism.py",
    ),
    "training": (
        "training/loop training/checkpoint training/schedules methods/vp",
        "tests/training/test_loop.py tests/training/test_checkpoint.py tests/training/test_schedules.py"
        " tests/integration/test_determinism.py"
        " tests/mappings/test_one_to_one.py::test_a_mapping_for_a_larger_model_is_refused",
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("areas", nargs="*", help=f"of {', '.join(AREAS)}; all without one")
    parser.add_argument("--survivors", action="store_true", help="only changes that survived in results/mutants.csv")
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args()
    if unknown := set(chosen.areas) - set(AREAS):
        parser.error(f"no area {', '.join(sorted(unknown))}; there are {', '.join(AREAS)}")
    earlier = list(csv.DictReader(TABLE.open())) if TABLE.exists() else []
    rows = [row for row in earlier if chosen.areas and row["area"] not in chosen.areas]
    with ThreadPoolExecutor(chosen.processes) as pool:
        jobs = []
        for area in chosen.areas or AREAS:
            known = [row for row in earlier if row["area"] == area]
            again = {key(row) for row in known if row["noticed"] == "no"} if chosen.survivors else None
            rows += [row for row in known if again is not None and row["noticed"] == "yes"]
            jobs += [pool.submit(run, area, part, chosen.processes, again) for part in range(chosen.processes)]
        for job in jobs:
            rows += job.result()
    rows.sort(key=lambda row: (list(AREAS).index(row["area"]), row["file"], int(row["line"]), row["change"]))
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for area in AREAS:
        of_area = [row["noticed"] == "yes" for row in rows if row["area"] == area]
        print(f"{area:9} {sum(of_area)} of {len(of_area)} noticed")
    print(f"{sum(row['noticed'] == 'yes' for row in rows)} of {len(rows)}")
    return 0


def key(row: dict) -> tuple:
    return row["file"], str(row["line"]), row["change"]


def run(area: str, part: int, parts: int, again: set | None) -> list[dict]:
    """One copy of the repository, every `parts`-th change of the area's sample."""
    files, tests = AREAS[area]
    copy = BUILD / f"{area}{part}"
    shutil.rmtree(copy, ignore_errors=True)
    for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    command = (
        f"env PYTHONPATH={copy} OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 {ROOT}/.venv/bin/python -m pytest"
        f" -x -q -p no:cacheprovider {tests}"
    )
    modules = [f"vpkit/{name}.py" for name in files.split()]
    settings = {"module-path": modules, "timeout": SECONDS, "excluded-modules": [], "test-command": command}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (copy / "mutants.toml").write_text("\n".join(["[cosmic-ray]", *lines, '[cosmic-ray.distributor]\nname = "local"']))
    cosmic_ray = Path(sys.executable).with_name("cosmic-ray")
    subprocess.run([cosmic_ray, "init", "mutants.toml", "mutants.sqlite"], cwd=copy, check=True)
    with use_db(str(copy / "mutants.sqlite")) as session:
        annotated = {name: annotations(copy / name) for name in modules}
        items = [item for item in session.work_items if not in_annotation(item.mutations[0], annotated)]
        items.sort(key=lambda item: describe(item.mutations[0]))
        sample = random.Random(SEED).sample(items, SAMPLE)[part::parts]
        if again is not None:
            sample = [item for item in sample if key(row_of(area, item)) in again]
        session.clear()
        session.add_work_items(sample)
    if part == 0 and again is None:  # nothing is learned from changes if the tests fail without one
        subprocess.run([cosmic_ray, "baseline", "mutants.toml"], cwd=copy, check=True)
    subprocess.run([cosmic_ray, "exec", "mutants.toml", "mutants.sqlite"], cwd=copy, check=True)
    with use_db(str(copy / "mutants.sqlite")) as session:
        rows = [row_of(area, item, result) for item, result in session.completed_work_items]
    shutil.rmtree(copy)
    return rows


def row_of(area: str, item, result=None) -> dict:
    """A line of the table; without a result, only what names the change."""
    mutation = item.mutations[0]
    file, line, _, operator, occurrence = describe(mutation)
    row = {"area": area, "file": file, "line": line, "change": f"{operator} {occurrence}", "noticed": "", "becomes": ""}
    if result is not None:
        row["noticed"] = "no" if result.test_outcome.value == "survived" else "yes"
        added = [
            text[1:].strip() for text in (result.diff or "").splitlines() if text.startswith("+") and text[1:2] != "+"
        ]
        row["becomes"] = " ".join(added)
    return row


def describe(mutation) -> tuple:
    line, column = mutation.start_pos
    return str(mutation.module_path), line, column, mutation.operator_name.removeprefix("core/"), mutation.occurrence


def annotations(path: Path) -> list[tuple]:
    """Where the annotations of a file begin and end."""
    places = []
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("annotation", "returns"):
            if (found := getattr(node, field, None)) is not None:
                places.append(((found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)))
    return places


def in_annotation(mutation, annotated: dict) -> bool:
    return any(start <= mutation.start_pos < end for start, end in annotated[str(mutation.module_path)])


if __name__ == "__main__":
    sys.exit(main())
