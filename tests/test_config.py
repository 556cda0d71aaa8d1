"""The settings: their ranges, and the file that keeps them."""

import dataclasses
import math
from importlib import metadata
from pathlib import Path

import pytest

from gatewise.errors import ArgumentError, RunError
from gatewise.train.config import ImageConfig, TrainConfig, read_config, write_config


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathConfig(ImageConfig):
    data: Path


CONFIGS = {"plain": TrainConfig, "images": ImageConfig, "paths": PathConfig}


@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("plain", TrainConfig()),
        ("plain", TrainConfig(dropout=0.25, learning_rate=3e-5, optimizer="sgd", seed=2**63 - 1)),
        ("plain", TrainConfig(schedule="one-cycle", clip_norm=0.5, precision="bfloat16", accumulate=4, dev_every=7)),
        ("plain", TrainConfig(best_by="accuracy", patience=3, nonfinite="skip", checkpoint_seconds=0.25)),
        ("images", ImageConfig(normalize=(0.1307, 0.3081), max_shift=2)),
        ("paths", PathConfig(data=Path('/a folder/of "quotes" \\ and\tumlauts äöü'))),
    ],
)
def test_settings_round_trip(tmp_path, task, config):
    write_config(tmp_path / "config.toml", task, config)
    name, back = read_config(tmp_path / "config.toml", CONFIGS)
    assert (name, back) == (task, config)
    assert {f.name: type(getattr(back, f.name)) for f in dataclasses.fields(back)} == {
        f.name: type(getattr(config, f.name)) for f in dataclasses.fields(config)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('task = "plain"\nhiden_size = 3', "hiden_size is no setting of plain, the nearest is hidden_size"),
        ('task = "plane"', "the task is 'plane', needed is one of plain, images, paths"),
        ("epochs = 3", "the task is None"),
        ('task = "plain"\nepochs = "3"', "epochs is '3', needed is a whole number"),
        ('task = "plain"\nepochs = 1.5', "epochs is 1.5, needed is a whole number"),
        ('task = "plain"\nepochs = true', "epochs is True, needed is a whole number"),
        ('task = "plain"\noptimizer = "adma"', r"optimizer is 'adma', needed is one of 'adam', 'sgd'"),
        (
            'task = "plain"\nschedule = "linear"',
            r"schedule is 'linear', needed is one of 'constant', 'cosine', 'one-cycle'",
        ),
        ('task = "plain"\nclip_norm = true', "clip_norm is True, needed is a number"),
        ('task = "images"\nnormalize = [0.1]', r"normalize is \[0.1\], needed is an array of a number and a number"),
        ('task = "plain"\nepochs = 3', "lacks hidden_size, num_layers, .*, which plain needs"),
        ("task = plain", "cannot be read"),
        ("task = \udcff", "cannot be read"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RunError, match=message) as caught:
        read_config(path, CONFIGS)
    assert "\n" not in str(caught.value)


def change(path, old, new):
    """Write the settings of a run and change one line of them."""
    write_config(path, "plain", TrainConfig())
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


def test_a_setting_out_of_range_is_refused(tmp_path):
    change(tmp_path / "config.toml", "epochs = 30", "epochs = 0")
    with pytest.raises(RunError, match=r"epochs is 0, needed is a number from 1 to below 2\^31"):
        read_config(tmp_path / "config.toml", CONFIGS)


def test_a_setting_that_is_missing_gets_no_default(tmp_path):
    change(tmp_path / "config.toml", "epochs = 30\n", "")
    with pytest.raises(RunError, match="lacks epochs, which plain needs"):
        read_config(tmp_path / "config.toml", CONFIGS)


def test_a_whole_number_is_taken_where_a_fraction_may_stand(tmp_path):
    change(tmp_path / "config.toml", "learning_rate = 0.001", "learning_rate = 1")
    _, config = read_config(tmp_path / "config.toml", CONFIGS)
    assert type(config.learning_rate) is float


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 0},
        {"num_layers": -1},
        {"dropout": 1.0},
        {"dropout": math.nan},
        {"dropout": 0.1, "num_layers": 1},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"batch_size": 0},
        {"eval_batch_size": 0},
        {"epochs": 0},
        {"dev_fraction": 1.0},
        {"seed": -1},
        {"seed": 2**63},
        {"accumulate": 0},
        {"clip_norm": -1.0},
        {"clip_norm": math.inf},
        {"clip_norm": math.nan},
        {"checkpoint_seconds": -1.0},
        {"checkpoint_seconds": math.nan},
        {"dev_every": -1},
        {"patience": -1},
        {"patience": 2**31},
        {"log_every": 0},
        {"threads": -1},
        {"normalize": (0.0, 0.0)},
        {"normalize": (math.nan, 1.0)},
        {"max_shift": -1},
        {"max_turn": 181.0},
    ],
)
def test_values_out_of_range_are_refused_by_name(changes):
    with pytest.raises(ArgumentError, match=rf"{next(iter(changes))} is .*, needed is"):
        ImageConfig(**changes)


def test_the_file_says_which_version_wrote_it_and_another_is_read_all_the_same(tmp_path):
    path = tmp_path / "config.toml"
    write_config(path, "plain", TrainConfig())
    line = f'gatewise = "{metadata.version("gatewise")}"\n'
    assert line in path.read_text()
    path.write_text(path.read_text().replace(line, 'gatewise = "99.0"\n'))
    assert read_config(path, CONFIGS) == ("plain", TrainConfig())


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    write_config(path, "plain", TrainConfig())
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_config(path, "plain", TrainConfig(epochs=3))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
