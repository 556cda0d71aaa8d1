"""Forecasts of series out of a file of one's own: the settings, and the windows that they make."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gatewise.tasks.bptt import METAVAR, NEEDED, parse_bptt
from gatewise.tasks.task import Task
from gatewise.train.config import TrainConfig
from gatewise.train.schedule import ScheduleName

if TYPE_CHECKING:
    from gatewise.data.windows import Windows

Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")]


@dataclass(frozen=True, kw_only=True)
class SeriesConfig(TrainConfig):
    """Forecast a column of a CSV or Parquet file: a window of rows is read, and the rows after it are forecast at once.

    The file has a row for each time, oldest first, and a header with the columns' names. The end of the series is the
    test part and the rows before it the dev part, which chooses the best weights: nothing is ever shuffled across these
    borders, and the scaling is fitted on the training part alone. gatewise evaluate tests the model from each origin in
    the test part, beside a naive, a seasonal naive and a linear forecast, and says where it is not better than they.

    Of the columns named: numbers with a decimal point, or names (--categories); empty cells and missing steps only with
    --fill; what is empty is read as filled, and neither learned nor scored. NaN and infinity are refused.

    Example:
      gatewise train series --data load.csv --target kw --time at --window 48 --horizon 12 --run runs/load
      gatewise train series --data shops.parquet --target sales --time day --group shop --features price --known holiday
      gatewise train series --data load.csv --target kw --time at --features sky --categories sky
      gatewise train series --data load.csv --target kw --time at --quantiles 0.1 0.5 0.9
      gatewise train series --data load.csv --target kw --time at --bptt 48/96 --batch-size 8
      gatewise evaluate runs/load --figure backtest.png
      gatewise predict runs/load load.csv --out forecast.csv --figure forecast.png
    """

    data: Path
    """The file: .csv (UTF-8, commas) or .parquet."""

    target: Annotated[str, tyro.conf.arg(metavar="NAME")]
    """The column that is forecast."""

    time: Name = None
    """The column of the times: dates, such as 2010-12-31 23:00, or numbers. Without it, the rows are in order."""

    time_format: Name = None
    """How dates are written where that is not plain, such as %d/%m/%Y or %Y%m%d (the letters of strftime)."""

    features: Names = ()
    """Columns of numbers that are read up to the present."""

    known: Names = ()
    """Columns of numbers that are known in advance, such as holidays: those of the horizon are read as well."""

    categories: Names = ()
    """Those of the features, known in advance or not, that are names rather than numbers, such as kinds of weather:
    each name of the training part is read as 1 where it holds and 0 elsewhere, and others are refused."""

    group: Name = None
    """The column that says which series a row is of, where there are several: one model is trained on all."""

    calendar: Annotated[
        tuple[Literal["none", "hour", "weekday", "month", "year-day"], ...],
        tyro.conf.arg(metavar="{none,hour,weekday,month,year-day}..."),
    ] = ()
    """What of the times is read, as sine and cosine: by itself what suits the step and the training part sees twice."""

    fill: Literal["refuse", "previous", "linear"] = "refuse"
    """Empty cells and missing steps are refused; or the value before holds on, as names always do; or a straight line
    is drawn."""

    window: int = 48
    """Rows that the LSTM reads, one after the other, before each forecast; with --bptt at least so many."""

    bptt: Annotated[str | None, tyro.conf.arg(metavar=METAVAR)] = None
    """Carry the state on in place of windows: whole series are read row by row, and forecast at each. Gradients flow
    within chunks of K1 rows, or through the last K2; or chunks have random lengths (Merity et al. 2018). The rows are
    cut into as many lanes as batch_size says: fewer where the series are short."""

    horizon: int = 12
    """Rows after the window that are forecast, all of them at once."""

    stride: int = 1
    """Rows between two origins of the backtest, and of the look at dev (with --bptt that is at each row)."""

    season: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Rows after which the series comes round. Without it: 24 of hours, 7 of days, 12 of months and so on, or 1."""

    scaling: Literal["group", "all"] = "group"
    """Each series is scaled by its own mean and deviation, or all by the same."""

    skip: Literal["none", "last", "season"] = "last"
    """What the model adds to: nothing; the last value; or the value a season before, which must be in the window."""

    highway: bool = False
    """Add a linear layer on the window's target to what the LSTM says (LSTNet, Lai et al. 2018)."""

    quantiles: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT...")] = ()
    """Quantiles that are forecast by pinball loss, ascending and with 0.5 among them; none forecasts a point."""

    point: Literal["mse", "mae"] = "mse"
    """What a point forecast is trained by: the mean squared or absolute error."""

    test_fraction: float = 0.2
    """Share of the time that is the test part, the end; above 0 and below 1."""

    hidden_size: int = 64
    num_layers: int = 1
    learning_rate: float = 2e-3
    schedule: ScheduleName = "cosine"
    clip_norm: float = 1.0
    batch_size: int = 64
    epochs: int = 20
    dev_fraction: float = 0.1
    """Share of the time set aside before the test part (dev): it chooses the best weights; with 0 training does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "horizon", "stride"):
            self._need(name, 1 <= getattr(self, name) < 2**31, "a number from 1 to below 2^31")
        self._need("season", self.season is None or 1 <= self.season < 2**31, "a number from 1 to below 2^31")
        self._need("test_fraction", 0 < self.test_fraction < 1, "a number above 0 and below 1")
        most = 1 - self.test_fraction
        self._need("dev_fraction", self.dev_fraction < most, f"below {most:g}, as test_fraction is the rest to 1")
        alone = "none" not in self.calendar or self.calendar == ("none",)
        once = len(set(self.calendar)) == len(self.calendar)
        self._need("calendar", alone and once, "none alone, or some of hour, weekday, month and year-day, each once")
        ascending = list(self.quantiles) == sorted(set(self.quantiles)) and all(0 < q < 1 for q in self.quantiles)
        fits = not self.quantiles or (ascending and 0.5 in self.quantiles and len(self.quantiles) > 1)
        self._need("quantiles", fits, "numbers between 0 and 1, ascending, such as 0.1 0.5 0.9, with 0.5 among them")
        self._need("point", self.point == "mse" or not self.quantiles, "left out where there are quantiles")
        read = (*self.features, *self.known)
        self._need("categories", set(self.categories) <= set(read), "columns that features or known name as well")
        twice = len(set(self.categories)) < len(self.categories)
        self._need("categories", not twice, "each column once")
        self._need("best_by", self.best_by == "loss", "loss")
        self._need("bptt", self.bptt is None or parse_bptt(self.bptt) is not None, NEEDED)
        carried = self.bptt is not None
        self._need("highway", not (carried and self.highway), "left out with bptt, as no window is there for it")
        self._need("accumulate", not carried or self.accumulate == 1, "1 with bptt, as the state is carried on")
        self._need("time_format", self.time_format is None or self.time is not None, "left out where there is no time")
        object.__setattr__(self, "data", self.data.absolute())  # a run is evaluated from anywhere

    @property
    def things(self) -> str:
        """What a score is the mean over."""
        return "samples" if self.bptt is None else "targets"


def splits(config: SeriesConfig) -> "dict[str, Windows]":
    """The windows of the training, dev and test part; no "dev" where its fraction is 0.

    Raises
    ------
    DataError
        The file is not in order, or its series are too short.
    ArgumentError
        The settings do not fit it.
    """
    from gatewise.tasks.forecast_data import data_of, windows_of

    return windows_of(data_of(config), config)


def test_set(config: SeriesConfig) -> "Windows":
    """The windows of the test part."""
    return splits(config)["test"]


TASK = Task("series", SeriesConfig, splits, test_set, "gatewise.tasks.forecasting", "FILE")
