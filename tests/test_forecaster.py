"""The model that forecasts, and how good a forecast is: what is added to, what is seen, measures by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from gatewise.data.steps import Step
from gatewise.data.windows import Form, Windows, borders_of, make_windows
from gatewise.tasks.backtest import Backtest, Errors, linear, mase, measure, naive, pinball, seasonal_naive, smape
from gatewise.tasks.forecaster import Forecaster, pinball_loss
from waves import form_of, plain

# --- the model ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", ["none", "last", "season"])
def test_what_the_model_adds_to(skip):
    form = Form(6, 5, 3, Step("row", 1), "row", (), 1, 0, False, {})
    model = Forecaster(form, 4, outputs=2, skip=skip)
    if skip == "none":
        torch.nn.init.zeros_(model.linear.weight)
        torch.nn.init.zeros_(model.linear.bias)
    rows = torch.randn(2, 11, 2)
    last, target = rows[:, 5, 0], rows[:, :, 0]
    needed = {
        "none": torch.zeros(2, 5),
        "last": last[:, None].expand(2, 5),
        "season": torch.stack([target[:, 3], target[:, 4], target[:, 5], target[:, 3], target[:, 4]], dim=1),
    }[skip]
    torch.testing.assert_close(model(rows), needed[:, :, None].expand(2, 5, 2))


def test_the_model_answers_in_units_of_what_is_left_to_forecast():
    form = Form(4, 2, 2, Step("row", 1), "row", (), 0, 0, False, {})
    model = Forecaster(form, 4, skip="season")
    rows, left = torch.randn(3, 6, 1), torch.tensor([[3.0, 4.0], [float("nan"), 5.0], [0.0, 0.0]])
    model.fit_spread(rows, rows[:, 2:4, 0] + left)
    assert model.spread.item() == pytest.approx(np.sqrt((9 + 16 + 25) / 5))
    torch.nn.init.ones_(model.linear.bias)
    torch.testing.assert_close(model(rows)[..., 0], rows[:, 2:4, 0] + model.spread)
    model.fit_spread(rows, rows[:, 2:4, 0])
    assert model.spread.item() == 1.0


@pytest.mark.parametrize("skip", ["none", "last", "season"])
def test_the_model_sees_no_target_of_the_horizon(skip):
    form = Form(6, 3, 2, Step("row", 1), "row", (), 1, 1, False, {})
    model = Forecaster(form, 4, skip=skip, highway=True)
    torch.nn.init.normal_(model.linear.weight)
    rows = torch.randn(2, 9, 3)
    other = rows.clone()
    other[:, 6:, :2] += 1
    assert torch.equal(model(rows), model(other))
    other[:, 6:, 2] += 1
    assert not torch.equal(model(rows), model(other))


# --- how good -----------------------------------------------------------------------------------------------


def test_the_measures_by_hand():
    forecast, truth = np.array([[1.0, 4.0], [2.0, 8.0]]), np.array([[2.0, 2.0], [2.0, np.nan]])
    whole, first, second = measure("x", forecast, truth, np.array([0.5, 2.0]))
    assert (whole.mae, whole.rmse) == pytest.approx((1.0, np.sqrt(5 / 3)))
    assert whole.mase == pytest.approx((2 + 4 + 0) / 3)
    assert whole.smape == pytest.approx(200 * (1 / 3 + 2 / 6 + 0) / 3)
    assert (first.first, first.last, first.mae) == (1, 1, 0.5)
    assert (second.first, second.last, second.mae) == (2, 2, 2.0)
    assert mase(np.ones((1, 1)), np.zeros(1)) is None
    assert smape(np.zeros((1, 1)), np.zeros((1, 1))) == 0


def test_coverage_and_pinball_by_hand():
    of_quantiles = np.array([[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]]])
    truth = np.array([[2.0], [3.0], [np.nan]])
    (found,) = measure("x", of_quantiles[:, :, 1], truth, np.ones(3), [0.1, 0.5, 0.9], of_quantiles)
    assert found.coverage == 0.5
    assert found.pinball == pytest.approx(((0.2 + 0.5 + 0.0) + (0.3 + 1.0 + 0.9)) / 6)
    given = torch.from_numpy(of_quantiles[:2])
    loss = pinball_loss([0.1, 0.5, 0.9])(given, torch.from_numpy(truth[:2]))
    assert loss.item() == pytest.approx(found.pinball)
    assert pinball_loss([0.1, 0.5, 0.9])(given, torch.tensor([[2.0], [np.nan]])).item() == pytest.approx(0.7 / 6)
    assert pinball(np.array([[[1.0]]]), np.array([[0.0]]), [0.9]).item() == pytest.approx(0.1)


def test_the_naive_forecasts_and_the_scale_by_hand():
    series = plain([1, 2, 3, 1, 2, 4, 1, 2, 5, 1, 2, 6])
    at = Windows(np.zeros((1, 1, 1), "f4"), np.zeros((1, 4), "f4"), np.zeros(1, np.intp), np.array([6]))
    assert naive([series], at, 4).tolist() == [[4, 4, 4, 4]]
    assert seasonal_naive([series], at, 4, 3).tolist() == [[1, 2, 4, 1]]
    form = form_of([series], season=3, horizon=1, test_fraction=0.1, dev_fraction=0.1)
    assert borders_of(series, form)[0] == 10
    assert form.groups[""].naive_error == pytest.approx((0 + 0 + 1 + 0 + 0 + 1 + 0) / 7)


def test_the_linear_baseline_finds_a_linear_series():
    """y(t) = 1.6 y(t-1) - y(t-2) goes on for ever, and two values tell the rest; a known number adds to it."""
    target = [0.0, 1.0]
    for _ in range(98):
        target.append(1.6 * target[-1] - target[-2])
    series = plain(target)
    form = form_of([series])
    train, dev, test = (make_windows([series], form, part) for part in ("train", "dev", "test"))
    np.testing.assert_allclose(linear(train, dev, test, form), test.targets, atol=1e-3)
    missing = dataclasses.replace(train, targets=np.full_like(train.targets, np.nan))
    assert linear(missing, dev, test, form) is None


def test_a_model_that_beats_nothing_says_so():
    errors = [Errors(name, 1, 2, mae, mae, None, 1.0) for name, mae in (("lstm", 2.0), ("naive", 3.0), ("linear", 1.0))]
    errors.append(Errors("lstm", 1, 1, 0.1, 0.1, None, 1.0))
    verdicts = Backtest("kw", 5, 1, 1, None, errors).verdicts()
    assert verdicts == [
        "the model beats naive: MAE 2 against 3",
        "the model does NOT beat linear: MAE 2 against 1",
    ]
