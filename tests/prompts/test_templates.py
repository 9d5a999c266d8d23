import pytest

from vpkit.prompts import clip_templates, fill_templates


def test_the_templates_are_clips_eighty_and_the_papers_own():
    templates = clip_templates()
    assert len(templates) == len(set(templates)) == 81
    assert templates[0] == "This is a photo of a {}."
    assert templates[40] == "a photo of a {}."  # index 39 of CLIP's 80
    assert all(template.count("{}") == 1 for template in templates)


def test_sentences_come_template_by_template():
    names = [f"class {k}" for k in range(47)]
    sentences = fill_templates(clip_templates(), names)
    assert len(sentences) == 81 * 47
    for position, (template, name) in {0: (0, 0), 47: (1, 0), 1883: (40, 3), 3806: (80, 46)}.items():
        assert sentences[position] == clip_templates()[template].format(names[name])
    assert fill_templates("a {}.", ["cat"]) == ["a cat."]


@pytest.mark.parametrize(
    ("templates", "names", "message"),
    [
        ("a photo", ["cat"], "template 'a photo': expected exactly one"),
        ("{} and {}", ["cat"], "exactly one"),
        ("a {0}", ["cat"], "exactly one"),
        ("a {}", ["cat", ""], "class name '': expected words"),
        ("a {}", ["c{}t"], r"class name 'c\{\}t'"),
        ("a {}", [], "0 class names"),
    ],
)
def test_bad_templates_and_names_are_refused(templates, names, message):
    with pytest.raises(ValueError, match=message):
        fill_templates(templates, names)
