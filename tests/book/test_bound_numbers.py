"""Numbers in the text come from runs: what is bound is computed, what differs or is bound to nothing is named."""

import json
import statistics
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import bound_numbers  # noqa: E402

CHAPTER = ROOT / "notebooks" / "01_visual_prompting.ipynb"
FRAME = 'percent("01", method="padding", prompt_size=24)'


def test_every_number_and_claim_of_the_book_is_as_the_runs_say(capsys):
    assert bound_numbers.main() == 0, capsys.readouterr().out


@pytest.fixture
def changed_study(tmp_path, monkeypatch):
    """The stored study of chapter 1, in which the frame of 24 pixels is suddenly far better."""
    folder = tmp_path / "vpkit" / "data" / "studies"
    folder.mkdir(parents=True)
    (original,) = (ROOT / "vpkit" / "data" / "studies").glob("01_*.json")
    runs = json.loads(original.read_text())
    for run in runs:
        if run["method"] == "padding" and run["parameters"]["prompt_size"] == 24:
            run["metrics"]["test_accuracy"] = 0.99
    import vpkit

    rows = vpkit.book.results._table(runs)
    monkeypatch.setattr(bound_numbers, "_study", lambda name: rows)


def test_a_changed_run_is_named_with_its_sentence(changed_study):
    wrong = bound_numbers.check_file(CHAPTER)
    assert len(wrong) >= 2
    assert any("the frame of 24 pixels reaches 68.9 %" in w and "says 68.9, the runs say 99.0" in w for w in wrong)
    assert any("Here a fixed patch beats the frame" in w and "is not so" in w for w in wrong)


def test_a_caption_that_compares_needs_a_condition(tmp_path):
    notebook, copy = nbformat.read(CHAPTER, as_version=4), tmp_path / "chapter.ipynb"
    (figure, *_) = [
        found
        for cell in notebook.cells
        if (found := cell.metadata.get("mystnb", {}).get("figure", {})) and "ahead" in found["caption"]
    ]
    figure["caption"] = figure["caption"].partition("<!--")[0]
    nbformat.write(notebook, copy)
    (wrong,) = bound_numbers.check_file(copy)
    assert wrong.startswith(figure["caption"])
    assert "compares without a condition" in wrong


def test_numbers_are_written_from_the_runs(changed_study, tmp_path):
    copy = tmp_path / "chapter.ipynb"
    copy.write_text(CHAPTER.read_text())
    bound_numbers.check_file(copy, write=True)
    text = "\n".join(cell.source for cell in nbformat.read(copy, as_version=4).cells)
    assert "the frame of 24 pixels reaches 99.0 %<!--= " in text
    assert "68.9 %" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("The frame reaches 68.9 %.", "68.9 % is bound to nothing"),
        ("It gains ten points.", "ten points is bound to nothing"),
        ("It has 68.9 %<!--= 68.9 -->.", "asks for no stored result"),
        ("It has 68.9 %<!--= min(68.9, 70) -->.", "asks for no stored result"),
        ('It has 1 %<!--= percent("01", method="frame") -->.', "no stored run of 01 has"),
        ("It has 1 %<!--= percent( -->.", "not an expression"),
        ('It wins<!--? percent("01", method="padding") > 99 -->.', "is not so"),
        ("## Summary\n\n* The frame is ahead.", "compares without a condition"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    _, wrong = bound_numbers.checked(text)
    assert len(wrong) == 1
    assert message in wrong[0]


def test_what_nobody_measured_is_told_apart():
    text = (
        "Momentum 0.9<!--: setting -->, Section 6.3, Eq. 1.2, $x = 0.5$, `lr = 0.1`, {cite}`a1.5b`, [a](b-0.3.html), "
        "two classes, 24 pixels.\n\n```python\nlr = 0.1  # 10 %\n```"
    )
    assert bound_numbers.checked(text) == (text, [])


def test_a_number_keeps_its_form():
    assert bound_numbers.written(1234.56, "1,000") == "1,235"
    assert bound_numbers.written(68.94, "7.1") == "68.9"
    assert bound_numbers.written(3.2, "Four") == "Three"
    less = f"It has (-1<!--= 0 - {FRAME} --> points)."
    assert bound_numbers.checked(less)[0] == f"It has (-69<!--= 0 - {FRAME} --> points)."
    text = f"It has 1 %<!--= {FRAME} -->."
    assert bound_numbers.checked(text)[0] == f"It has 69 %<!--= {FRAME} -->."


def test_a_measured_time_and_a_printed_solution_are_bound_too():
    minutes = 'measured("lanes.json", "lanes", {"command": "book"}, "after") / 60'
    assert bound_numbers.checked(f"It takes 9<!--= {minutes} --> minutes.")[1] == [
        "It takes 9 minutes.\n    says 9, the runs say 6"
    ]
    wrong = ['solved("01", 2, "no such line")', 'reported("book/tiny_clip_evaluation.txt", "no such row")']
    for expression in wrong:
        _, found = bound_numbers.checked(f"It has 1 %<!--= {expression} -->.")
        assert len(found) == 1
        assert "has nothing like no such" in found[0]


def test_a_difference_is_taken_seed_by_seed_and_has_an_interval(changed_study):
    ahead = 'difference("01", "padding", "fixed patch", prompt_size=24)'  # 99 % in each seed of the changed study
    patch = 'each("01", method="fixed patch", prompt_size=24)'
    each = bound_numbers.computed(patch)
    assert bound_numbers.computed(ahead) == pytest.approx([99 - value for value in each])
    assert bound_numbers.computed(f"mean({ahead})") == pytest.approx(99 - sum(each) / 3)
    assert bound_numbers.computed(f"minus({patch}, {patch})") == [0, 0, 0]
    assert bound_numbers.computed(f"margin({patch})") == pytest.approx(
        4.303 * statistics.stdev(each) / 3**0.5, rel=1e-3
    )


def test_a_table_of_what_was_tried_is_read_in_the_order_of_the_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(bound_numbers, "ROOT", tmp_path)
    (tmp_path / "tried.csv").write_text("method,seed,accuracy\nILM,1,0.5\nILM,0,0.25\nFLM,0,0.1\n")
    assert bound_numbers.computed('tried("tried.csv", "accuracy", method="ILM")') == [25, 50]
    assert bound_numbers.computed('tried("tried.csv", "accuracy", method="ILM", seed=1)') == [50]
    with pytest.raises(ValueError, match="no row with"):
        bound_numbers.computed('tried("tried.csv", "accuracy", method="BLM")')


def test_of_a_solution_the_answer_is_read_and_its_code_is_not(tmp_path):
    path = tmp_path / "chapter.yaml"
    path.write_text(
        "- exercise: 1\n  runs: [{lr: 0.5}]\n  answer: >-\n    It has 12.5 %.\n"
        "- exercise: 2\n  show: |\n    print(0.25)\n"
        f"  answer: >-\n    And 1 %<!--= {FRAME} -->.\n"
    )
    wrong = bound_numbers.check_file(path, write=True)
    assert [w.partition("\n")[0] for w in wrong] == ["It has 12.5 %.", "And 1 %."]
    assert "lr: 0.5" in path.read_text()
    assert "And 69 %<!--= " in path.read_text()
