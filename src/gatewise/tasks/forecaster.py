"""An LSTM over the rows of series, whose linear layer forecasts what comes after; and what it is trained by."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from gatewise.data.windows import Form
from gatewise.nn import LSTM
from gatewise.train.runner import Loss


class Forecaster(nn.Module):
    """An LSTM over a window of rows, and a linear layer on its last output and what is known of the horizon.

    Parameters
    ----------
    form : Form
        What the rows are like.
    hidden_size, num_layers, dropout
        Of the LSTM.
    outputs : int, default 1
        Numbers for each step of the horizon: one, or a quantile each.
    skip : {"none", "last", "season"}, default "none"
        What is added to: nothing, the last value, or the value a season before. With the last two the model begins as
        that naive forecast; it reads the window's target as its difference to the last value, and beside it the change
        over a row or a season in units of `spread`, in which it also answers: a series may be far larger than what is
        left to forecast of it.
    highway : bool, default False
        Whether a linear layer on the window's target, or with "season" on its change, is added.
    lstm : callable, default gatewise.nn.LSTM
        Makes the LSTM from the arguments of `torch.nn.LSTM`, such as that class itself.

    Attributes
    ----------
    spread : Tensor, shape ()
        The root mean square of what is left to forecast over the training part, kept with the weights; 1 at first.

    Examples
    --------
    >>> from gatewise.data.steps import Step
    >>> form = Form(48, 12, 1, Step("row", 1), "row", (), 2, 1, False, {})
    >>> Forecaster(form, 16, outputs=3)(torch.zeros(5, 60, 4)).shape
    torch.Size([5, 12, 3])
    """

    def __init__(
        self,
        form: Form,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        outputs: int = 1,
        skip: Literal["none", "last", "season"] = "none",
        highway: bool = False,
        lstm: Callable[..., nn.Module] = LSTM,
    ) -> None:
        super().__init__()
        self.window, self.horizon, self.season = form.window, form.horizon, form.season
        self.past, self.outputs, self.skip = 1 + form.features, outputs, skip
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(()))
        self.lstm = lstm(form.channels + (skip != "none"), hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.linear = nn.Linear(hidden_size + form.horizon * form.ahead, form.horizon * outputs)
        self.highway = nn.Linear(form.window, form.horizon * outputs, bias=False) if highway else None
        if skip != "none":
            for weight in [*self.linear.parameters(), *(self.highway.parameters() if self.highway else ())]:
                nn.init.zeros_(weight)

    def forward(self, rows: Tensor) -> Tensor:
        """Map rows (B, window + horizon, channels) to forecasts (B, horizon, outputs); the first state is zero."""
        window, ahead = rows[:, : self.window], rows[:, self.window :, self.past :]
        target = window[:, :, :1]
        direct = target
        if self.skip != "none":
            lag = self.season if self.skip == "season" else 1
            change = nn.functional.pad((target[:, lag:] - target[:, :-lag]) / self.spread, (0, 0, lag, 0))
            relative = target - target[:, -1:]
            direct = change if self.skip == "season" else relative
            window = torch.cat([relative, window[:, :, 1:], change], dim=2)
        output, _ = self.lstm(window)
        said = self.linear(torch.cat([output[:, -1], ahead.flatten(1)], dim=1))
        if self.highway is not None:
            said = said + self.highway(direct.flatten(1))
        forecast: Tensor = said.view(-1, self.horizon, self.outputs) * self.spread
        return forecast + self.base(rows)

    def base(self, rows: Tensor) -> Tensor:
        """What is added to, shape (B, horizon, 1), of rows (B, window + horizon, channels)."""
        if self.skip == "none":
            return torch.zeros_like(rows[:, : self.horizon, :1])
        lag = self.season if self.skip == "season" else 1
        return rows[:, self.window - lag + torch.arange(self.horizon, device=rows.device) % lag, :1]

    @torch.no_grad()
    def fit_spread(self, rows: Tensor, targets: Tensor) -> None:
        """Set `spread` from training rows (N, window + horizon, channels) and targets (N, horizon), NaN left out."""
        self.spread.fill_(spread_of(targets - self.base(rows)[..., 0]))


class CarriedForecaster(nn.Module):
    """An LSTM that reads whole series row by row, its state carried on, and forecasts the next rows at each.

    Parameters
    ----------
    form : Form
        What the rows are like.
    hidden_size, num_layers, dropout
        Of the LSTM.
    outputs : int, default 1
        Numbers for each step of the horizon: one, or a quantile each.
    lstm : callable, default gatewise.nn.LSTM
        Makes the LSTM from the arguments of `torch.nn.LSTM`.

    Attributes
    ----------
    spread : Tensor, shape ()
        As of `Forecaster`.

    Examples
    --------
    >>> from gatewise.data.steps import Step
    >>> form = Form(48, 12, 1, Step("row", 1), "row", (), 2, 1, False, {})
    >>> rows, begins = torch.zeros(5, 7, 4 + 1 + 12 + 12), torch.zeros(5, 7, dtype=torch.bool)
    >>> CarriedForecaster(form, 16, outputs=3)(rows, begins, None)[0].shape
    torch.Size([5, 7, 12, 3])
    """

    def __init__(
        self,
        form: Form,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        outputs: int = 1,
        lstm: Callable[..., nn.Module] = LSTM,
    ) -> None:
        super().__init__()
        self.parts = [form.channels, 1, form.horizon, form.horizon * form.ahead]
        self.horizon, self.outputs = form.horizon, outputs
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(()))
        self.lstm = lstm(form.channels + 1, hidden_size, num_layers, batch_first=True, dropout=dropout)
        self.linear = nn.Linear(hidden_size + form.horizon * form.ahead, form.horizon * outputs)
        for weight in self.linear.parameters():
            nn.init.zeros_(weight)  # it begins as the naive forecast

    def forward(
        self, rows: Tensor, begins: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map rows (B, T, ·), as of `step_inputs`, and where series begin (B, T) to forecasts (B, T, horizon, outputs).

        The state is what the call before has left, or None at the beginning.
        """
        row, change, naive, ahead = torch.split(rows, self.parts, dim=2)
        output, state = self.lstm(torch.cat([row, change / self.spread], dim=2), state, reset=begins)
        said = self.linear(torch.cat([output, ahead], dim=2))
        return said.unflatten(2, (self.horizon, self.outputs)) * self.spread + naive.unsqueeze(3), state

    @torch.no_grad()
    def fit_spread(self, rows: Tensor, targets: Tensor) -> None:
        """Set `spread` from training rows (N, ·) and targets (N, horizon), NaN left out."""
        self.spread.fill_(spread_of(targets - torch.split(rows, self.parts, dim=1)[2]))


def spread_of(left: Tensor) -> float:
    """The root mean square of what is left to forecast, NaN left out; 1 where it is 0.

    Examples
    --------
    >>> spread_of(torch.tensor([3.0, float("nan"), -3.0])), spread_of(torch.zeros(2))
    (3.0, 1.0)
    """
    spread = left[~left.isnan()].double().square().mean().sqrt().item()
    return spread if spread > 0 else 1.0


def of_those_there(loss: Loss) -> Loss:
    """The same loss as a mean over the targets that are there; of none 0.

    Examples
    --------
    >>> of_those_there(squared_error)(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(4.)
    """

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        there = (~targets.isnan()).sum().clamp(min=1)
        return loss(outputs, targets) * (targets.numel() / there)

    return mean


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean squared error of forecasts (..., H, 1); of targets (..., H) that are NaN it is 0.

    Examples
    --------
    >>> squared_error(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(2.)
    """
    return _mean((outputs[..., 0] - _there(targets)) ** 2, targets)


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean absolute error of forecasts (..., H, 1); of targets (..., H) that are NaN it is 0.

    Examples
    --------
    >>> absolute_error(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(1.)
    """
    return _mean((outputs[..., 0] - _there(targets)).abs(), targets)


def pinball_loss(quantiles: Sequence[float]) -> Loss:
    """The mean pinball loss of forecasts (..., H, Q); of targets (..., H) that are NaN it is 0. See `backtest.pinball`.

    Examples
    --------
    >>> pinball_loss([0.5])(torch.tensor([[[1.0], [5.0]]]), torch.tensor([[3.0, float("nan")]]))
    tensor(0.5000)
    """
    shares = torch.tensor(quantiles)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        error = _there(targets).unsqueeze(-1) - outputs
        own = shares.to(outputs.device)
        return _mean(torch.maximum(own * error, (own - 1) * error).mean(dim=-1), targets)

    return loss


def _there(targets: Tensor) -> Tensor:
    return torch.nan_to_num(targets)


def _mean(losses: Tensor, targets: Tensor) -> Tensor:
    """The mean of losses (..., H), 0 where there is no target: a batch's is then the mean of its parts', as processes
    that share it need.
    """
    return (losses * ~targets.isnan()).mean()
