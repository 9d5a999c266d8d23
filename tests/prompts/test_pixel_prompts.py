import pytest
import torch

from vpkit import count_parameters
from vpkit.models import FrozenModel
from vpkit.prompts import ExpandPrompt, PadPrompt, PatchPrompt, vp_prompt


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        (lambda: PadPrompt(224, 10), 25_680),
        (lambda: PadPrompt(224, 30), 69_840),  # Bahng et al., Sec. 3.2.2
        (lambda: PadPrompt(224, 50), 104_400),
        (lambda: PadPrompt(224, 112), 150_528),  # the frame covers the image
        (lambda: PatchPrompt(224, 1), 3),
        (lambda: PatchPrompt(224, 224), 150_528),
        (lambda: ExpandPrompt(32, 224), 147_456),
        (lambda: ExpandPrompt(128, 224), 101_376),  # Chen et al., 3 (224^2 - r^2)
        (lambda: ExpandPrompt(200, 224), 30_528),
        (lambda: ExpandPrompt(127, 224), 3 * 34_047),
        (lambda: ExpandPrompt(5, 8), 3 * 39),
    ],
)
def test_parameter_counts_are_the_papers(prompt, count):
    assert count_parameters(prompt()) == count


@pytest.mark.parametrize(("size", "canvas", "left", "right"), [(31, 224, 97, 96), (32, 224, 96, 96), (5, 8, 2, 1)])
def test_an_odd_remainder_goes_left_and_top(size, canvas, left, right):
    assert ExpandPrompt(size, canvas).padding == (left, right, left, right)


def test_the_grey_border_of_the_released_code():
    image = torch.tensor([[0, 1 / 12], [1 / 6, 1 / 4]]).expand(1, 3, 2, 2)
    out = ExpandPrompt(2, 5)(image)
    assert torch.equal(out[..., 2:4, 2:4], image)
    border = torch.ones(5, 5, dtype=torch.bool)
    border[2:4, 2:4] = False
    assert (out[..., border] == 0.5).all()

    prompt = ExpandPrompt(2, 4)
    prompt(image).sum().backward()
    assert torch.allclose(prompt.pixels.grad, torch.full((3, 12), 0.25))


def test_zero_start_is_true_zero_padding_and_can_come_back_from_a_bound():
    prompt = ExpandPrompt(2, 4, start="zero")
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(prompt(image), torch.nn.functional.pad(image, (1, 1, 1, 1)))
    with torch.no_grad():
        prompt.pixels.fill_(-0.3)
    assert prompt.picture().min() == 0
    prompt.picture().sum().backward()
    assert (prompt.pixels.grad == 1).all()


@pytest.mark.parametrize("start", ["grey", "zero"])
def test_the_border_stays_in_range(start):
    prompt = ExpandPrompt(4, 8, start)
    with torch.no_grad():
        prompt.pixels.normal_(0, 50)
    assert 0 <= prompt.picture().min() <= prompt.picture().max() <= 1


def test_free_pixels_inside_the_image_are_prompted_too():
    free = torch.zeros(4, 4, dtype=torch.bool)
    free[0, :3] = True
    prompt = ExpandPrompt(4, 8, free=free)
    assert count_parameters(prompt) == 3 * (8 * 8 - 4 * 4 + 3)
    shown = prompt.picture()[:, 2:6, 2:6]
    assert (shown[:, free] == 0.5).all()
    assert (shown[:, ~free] == 0).all()


def test_a_frame_touches_only_the_frame():
    prompt, images = PadPrompt(10, 3), torch.rand(2, 3, 10, 10)
    out = prompt(images)
    assert torch.equal(out[..., 3:7, 3:7], images[..., 3:7, 3:7])
    assert torch.equal(prompt.picture()[:, 3:7, 3:7], torch.zeros(3, 4, 4))
    assert (out != images)[..., :3, :].float().mean() > 0.99
    out.sum().backward()
    assert (prompt.pixels.grad == 2).all()  # every stored pixel shows, once per image


def test_scaling_by_std_adds_after_normalisation():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 36, 5))
    model = FrozenModel(network, list("abcde"), image_size=6)
    prompt, images = PadPrompt(6, 2, model.std), torch.rand(4, 3, 6, 6)
    raw = torch.zeros(3, 36).index_copy(1, prompt.position, prompt.pixels.detach()).view(3, 6, 6)
    normalised = (images - model.mean[:, None, None]) / model.std[:, None, None]
    assert torch.allclose(model(prompt(images)), network(normalised + raw), atol=1e-5)


def test_the_callers_images_are_left_alone():
    images = torch.rand(2, 3, 8, 8)
    before = images.clone()
    for prompt in (PadPrompt(8, 2), PatchPrompt(8, 3), PatchPrompt(8, 3, "random"), ExpandPrompt(8, 12)):
        prompt(images)
    assert torch.equal(images, before)


def test_a_fixed_patch_is_at_the_top_left_and_a_random_one_reaches_every_corner():
    fixed = PatchPrompt(6, 2).picture()
    assert (fixed[:, :2, :2] != 0).all()
    assert fixed[:, 2:].eq(0).all()
    assert fixed[:, :, 2:].eq(0).all()
    random = PatchPrompt(6, 2, "random")
    seen = sum((random.picture() != 0).any(0).int() for _ in range(300))
    assert (seen > 0).all()  # the last row and column too, which the released code never reaches
    random.eval()
    assert any(not torch.equal(random.picture(), random.picture()) for _ in range(20))  # at test time too


def test_learned_values_survive_a_state_dict():
    first, second = PadPrompt(8, 2), PadPrompt(8, 2)
    assert set(first.state_dict()) == {"pixels"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.picture(), second.picture())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PadPrompt(10, 6), "width=6: a frame in a 10 px image has a width of 1..5$"),
        (lambda: PadPrompt(10, 0), "width=0"),
        (lambda: PatchPrompt(10, 11), "size=11: a patch on a 10 px image has a side of 1..10"),
        (lambda: PatchPrompt(10, 2, "moving"), "where='moving': expected 'fixed' or 'random'"),
        (lambda: ExpandPrompt(20, 10), "image_size=20: expected 1..10, the image must fit its canvas"),
        (lambda: ExpandPrompt(5, 10, "black"), "start='black': expected 'grey' or 'zero'"),
        (lambda: PadPrompt(10, 2)(torch.rand(1, 3, 9, 9)), "images are 9 x 9 px, this prompt was made for 10 x 10"),
        (lambda: PadPrompt(10, 2)(torch.rand(1, 3, 9, 8)), "images are 9 x 8 px"),
        (lambda: ExpandPrompt(5, 10)(torch.rand(1, 3, 10, 10)), "made for 5 x 5"),
        (lambda: ExpandPrompt(4, 8, free=torch.ones(4, 4)), r"free is \(4, 4\) torch.float32: expected \(4, 4\) bool"),
        (lambda: ExpandPrompt(4, 8, free=torch.ones(5, 4).bool()), r"free is \(5, 4\) torch.bool"),
        (lambda: ExpandPrompt(4, 8, free=torch.ones(3, 3).bool()), r"free is \(3, 3\) torch.bool"),
    ],
)
def test_impossible_prompts_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_vps_templates_by_name_are_its_three_prompts():
    torch.manual_seed(0)
    made = {kind: vp_prompt(kind, 16, 4, scale=0.5) for kind in ("padding", "fixed patch", "random patch")}
    assert isinstance(made["padding"], PadPrompt)
    assert made["padding"].width == 4
    assert [made[kind].where for kind in ("fixed patch", "random patch")] == ["fixed", "random"]
    for kind in ("fixed patch", "random patch"):
        assert made[kind].size == 4
        assert made[kind].scale.unique().tolist() == [0.5]
    blank = vp_prompt("fixed patch", 16, 4, start="zero")
    assert not blank.picture().any()
    with pytest.raises(ValueError, match="kind='frame': expected 'padding', 'fixed patch' or 'random patch'"):
        vp_prompt("frame", 16, 4)
    with pytest.raises(ValueError, match="start='grey'"):
        vp_prompt("fixed patch", 16, 4, start="grey")
