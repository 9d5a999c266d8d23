"""The pictures of the front page: of every chapter, of a stored run, and with the answers that the model gives."""

import sys
from pathlib import Path

import nbformat
import pytest

import vpkit

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import front  # noqa: E402

CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))
CHOSEN = front.chosen_figures(ROOT / "book")


def test_the_front_page_has_every_chapter_in_order():
    assert list(CHOSEN) == CHAPTERS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_card_shows_a_figure_of_its_chapter(chapter):
    notebook = nbformat.read(ROOT / "notebooks" / f"{chapter}.ipynb", as_version=4)
    about = CHOSEN[chapter]
    assert front.figure_of(notebook, about.get("card"))["alt"]
    assert len(front.small(front.figure_of(notebook, about.get("card"))["png"])) < 120_000
    if "opens" in about:
        assert front.figure_of(notebook, about["opens"])["caption"]
    with pytest.raises(ValueError, match="begins with 'a picture of nothing'"):
        front.figure_of(notebook, "a picture of nothing")


@pytest.mark.slow
def test_the_prompt_turns_a_wrong_answer_into_the_right_one():
    found = front.asked()
    before, after = found["answers"]
    assert before[1] != found["class"] == after[1] == "3"
    assert after[0] == "tiger shark"
    assert found["image"].shape == found["prompted"].shape == (3, 96, 96)


def test_the_prompt_is_that_of_the_stored_run():
    path = ROOT / "vpkit" / "data" / "studies" / front.CHAPTER / "mnist5k.safetensors"
    card = vpkit.prompts.load_prompt(path, vpkit.prompts.PadPrompt(96, 24))
    run = vpkit.load_study(front.CHAPTER).query("method == 'padding' and prompt_size == 24 and seed == @card['seed']")
    assert card["test_accuracy"] == pytest.approx(run.test_accuracy.item(), abs=0.02)
