import pytest

from vpkit.training.schedules import constant, constant_then_cosine, cosine, multistep, warmup_cosine


def test_vp_warms_up_for_1000_steps_then_follows_the_cosine():
    rate = warmup_cosine(1000, 196)
    for step, expected in {0: 0.04, 1: 0.08, 499: 20, 999: 40, 1000: 40, 98_500: 20}.items():
        assert 40 * rate(step) == pytest.approx(expected)
    assert 40 * rate(195_999) == pytest.approx(2.6e-9, rel=0.01)


@pytest.mark.parametrize(("epochs", "milestones"), [(10, (5, 7)), (50, (25, 36)), (100, (50, 72)), (200, (100, 144))])
def test_ilm_vp_drops_at_half_and_at_72_percent(epochs, milestones):
    rate = multistep(epochs, 7)
    drops = [e for e in range(1, epochs) if rate(7 * e) < 0.5 * rate(7 * e - 1)]
    assert tuple(drops) == milestones
    assert rate(7 * epochs - 1) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("base", "warmup", "epochs", "expected"),
    [
        (0.002, 1, 50, {0: 1e-5, 1: 2e-3, 2: 1.9980267e-3, 25: 1.0627905e-3, 49: 7.8853e-6}),
        (0.01, 10, 60, {0: 1e-5, 9: 1e-5, 10: 0.01, 11: 9.9931477e-3, 30: 7.5e-3, 59: 8.06647e-4}),
        (0.01, 10, 100, {99: 2.95596e-4}),
        (0.002, 1, 10, {9: 1.90983e-4}),
    ],
)
def test_coop_and_dpt_do_not_shorten_the_cosine(base, warmup, epochs, expected):
    rate = constant_then_cosine(epochs, 3, base, warmup)
    for epoch, lr in expected.items():
        assert base * rate(3 * epoch) == pytest.approx(lr, rel=1e-5)
        assert rate(3 * epoch) == rate(3 * epoch + 2)  # per epoch, not per step


def test_cosine_runs_from_one_to_almost_zero():
    rate = cosine(4, 25)
    assert rate(0) == 1
    assert rate(50) == pytest.approx(0.5)
    assert 0 < rate(99) < 0.001
    assert constant(4, 25)(99) == 1


def test_a_warmup_as_long_as_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=1000: the whole run has 100 steps"):
        warmup_cosine(4, 25)
