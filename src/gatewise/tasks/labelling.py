"""Sequences of different length read by an LSTM, and labelled as a whole or step by step."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from gatewise.data.sequences import Form, Sequences, make_form, read_sequences
from gatewise.errors import ArgumentError, DataError, RunError
from gatewise.nn import LSTM
from gatewise.tasks.mistakes import Verdicts
from gatewise.tasks.sequences import SequencesConfig, splits
from gatewise.tasks.task import PROBED, Outcome, Prediction, Probe, Report, Sample, Subject, Task
from gatewise.tasks.training import Problem, built, counted, train_problem
from gatewise.train.lanes import NO_TARGET
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.progress import Score
from gatewise.train.ragged import Ragged
from gatewise.train.run import Run
from gatewise.train.runner import Loss, Measure, Runner
from gatewise.train.state import fill_weights
from gatewise.train.tensors import read_tensors

if TYPE_CHECKING:
    import polars as pl


class Labeller(nn.Module):
    """An LSTM over sequences of different length, and a linear layer on its state in the end or at each step.

    Parameters
    ----------
    input_size : int
        Numbers in a step.
    num_classes : int
        Classes.
    hidden_size, num_layers, dropout, bidirectional
        Of the LSTM.
    read : {"mean", "last", "each"}, default "mean"
        What is classified: the mean of the outputs over each sequence's own steps; the state after the last of them,
        and after the first one for the direction that reads from the end; or the output at each step.

    Examples
    --------
    >>> x, lengths = torch.zeros(5, 9, 3), torch.tensor([9, 1, 4, 4, 2])
    >>> Labeller(3, 7, 16)(x, lengths).shape, Labeller(3, 7, 16, read="each")(x, lengths).shape
    (torch.Size([5, 7]), torch.Size([5, 9, 7]))
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        read: Literal["mean", "last", "each"] = "mean",
    ) -> None:
        super().__init__()
        self.read = read
        self.lstm = LSTM(
            input_size, hidden_size, num_layers, batch_first=True, dropout=dropout, bidirectional=bidirectional
        )
        self.linear = nn.Linear(hidden_size * (1 + bidirectional), num_classes)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map x (B, T, I) and lengths (B,), by default T for all, to logits (B, classes), or (B, T, classes)."""
        output, (h_n, _) = self.lstm(x, lengths=lengths)
        if self.read == "each":
            found = output
        elif self.read == "mean":  # past a sequence's end the output is 0
            steps = x.new_full((len(x), 1), x.size(1)) if lengths is None else lengths[:, None].to(output)
            found = output.sum(1) / steps
        else:
            found = h_n[-(1 + self.lstm.bidirectional) :].transpose(0, 1).flatten(1)
        logits: Tensor = self.linear(found)
        return logits


def tagging_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of logits (B, T, classes) and targets (B, T).

    It is the mean over each sequence's own steps, then over sequences: a long one weighs as much as a short one, and a
    batch's is the mean of its parts', weighed by how many sequences they have.

    Examples
    --------
    >>> outputs = torch.tensor([[[1.0, 1.0], [9.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    >>> tagging_loss(outputs, torch.tensor([[0, NO_TARGET], [1, 1]]))
    tensor(0.6931)
    """
    losses = cross_entropy(outputs.transpose(1, 2), targets, ignore_index=NO_TARGET, reduction="none")
    return (losses.sum(1) / (targets != NO_TARGET).sum(1)).mean()


def right_share(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum over sequences of the share of their steps whose highest score is their own class's.

    Examples
    --------
    >>> outputs = torch.tensor([[[1.0, 0.0], [9.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> right_share(outputs, torch.tensor([[0, NO_TARGET], [1, 1]]))
    tensor(1.5000)
    """
    there = targets != NO_TARGET
    return (((outputs.argmax(dim=2) == targets) & there).sum(1) / there.sum(1)).sum()


def samples_of(sequences: Sequences, form: Form) -> Ragged:
    """Scaled steps (S, I) as float32, lengths (N,) and the labels; 0 for those that are not known."""
    return Ragged(
        torch.from_numpy(form.scaled(sequences)),
        torch.from_numpy(sequences.lengths.astype(np.int64)),
        torch.from_numpy(sequences.labels.clip(0).astype(np.int64)),
        sequences.per_step,
    )


def problem(config: SequencesConfig) -> Problem:
    """What the settings train."""
    sets = splits(config)
    train = sets["train"]
    form = make_form(train)
    model = _build(form, config)
    counts = ", ".join(f"{len(sequences):,} {name}" for name, sequences in sets.items())
    lengths = np.concatenate([sequences.lengths for sequences in sets.values()])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    directions = ", both directions" if config.bidirectional else ""
    left_out = f"; left out, as they begin with no number: {', '.join(train.left_out)}" if train.left_out else ""
    return Problem(
        model,
        _loss(config),
        _measures(config),
        {name: samples_of(sequences, form) for name, sequences in sets.items() if name != "test"},
        about={"form": form.to_json(), "test": sets["test"].sha256()},
        description={
            "data": f"{counts} sequences of {lengths.min():,} to {lengths.max():,} steps, {lengths.sum():,} in all",
            "read": ", ".join(form.features) + left_out,
            "classes": ", ".join(form.classes),
            "model": (
                f"LSTM {len(form.features)}→{config.hidden_size}{directions}, {counted(config.num_layers, 'layer')}, "
                f"{len(form.classes)} classes{' at each step' * config.per_step}, {parameters:,} parameters"
            ),
        },
    )


def train(task: Task, config: SequencesConfig, folder: Path, report: Report, resume: bool = False) -> Outcome:
    """Train in a run folder: see `train_problem`."""
    return train_problem(task.name, config, problem, folder, report, resume)


def evaluate(task: Task, config: SequencesConfig, run: Run, weights: str) -> Score:
    """Loss and accuracy, means over the test sequences; where each step has a label, over a sequence's means."""
    runner, form, kept = _load(config, run.weights(weights))
    return runner.evaluate(samples_of(_tested(config, form, kept), form))


def judge(task: Task, config: SequencesConfig, run: Run, weights: str) -> Verdicts:
    """Evaluate as `evaluate` does, and keep what each test sequence, or each of its steps, was taken for."""
    runner, form, kept = _load(config, run.weights(weights))
    tested = _tested(config, form, kept)
    samples = samples_of(tested, form)
    names = _names_of_steps(tested) if config.per_step else [f"sequence {name}" for name in tested.ids]
    return Verdicts(
        runner.evaluate(samples),
        tested.labels,
        _log_scores(runner, samples, len(form.classes)),
        form.classes,
        None,
        names,
        "step" if config.per_step else "sequence",
    )


def labels_of(config: SequencesConfig, run: Run, weights: str, path: Path) -> "pl.DataFrame":
    """Label the sequences of a file, or their steps, in the order in which they first appear there.

    Parameters
    ----------
    config : SequencesConfig
        The run's settings.
    run : Run
        The folder.
    weights : {"best", "last"}
        Which ones.
    path : path
        A file with the columns that the run reads. It may have labels, of which none may be new.

    Returns
    -------
    polars.DataFrame
        The id, where each step has a label its step (by its column, or counted from 1), the label, and its probability.

    Raises
    ------
    RunError
        The weights are missing, damaged, or not those of the settings.
    DataError
        The file is not in order, lacks what the model reads, or has a label that is none of the training's.
    """
    import polars as pl

    runner, form, _ = _load(config, run.weights(weights))
    given = read_sequences(path, replace(config.layout, features=form.features), labelled=False)
    given = given.with_classes(form.classes)
    log_scores = _log_scores(runner, samples_of(given, form), len(form.classes))
    ids, order = np.array(given.ids), np.argsort(given.rows[given.starts])
    columns = {}
    if config.per_step:
        ids, order = np.repeat(ids, given.lengths), np.argsort(given.rows)
        columns[config.step or "step"] = given.clock.column()
    labels = np.array(form.classes)[log_scores.argmax(axis=1)]
    columns |= {config.target or "label": labels, "probability": np.exp(log_scores.max(axis=1)).astype(np.float64)}
    return pl.DataFrame({config.id or "id": ids} | columns)[order]


def predict(config: SequencesConfig, run: Run, weights: str, given: str) -> Prediction:
    """Refuse: a file has many sequences; see `labels_of`."""
    raise ArgumentError("sequences are labelled from a file: see gatewise predict --help")


def look(task: Task, config: SequencesConfig, run: Run, weights: str, given: Sequence[str]) -> Subject:
    """Load a run's model, and the test sequences; of one label a step, and with inputs given beside them, refuse."""
    if config.per_step:
        raise ArgumentError("gatewise inspect is for one label a sequence, and the run has one a step: see evaluate")
    if given:
        raise ArgumentError(
            f"gatewise inspect shows the test part of {task.name}, and {given[0]!r} is given: leave it out"
        )
    runner, form, kept = _load(config, run.weights(weights))
    tested = _tested(config, form, kept)
    samples = samples_of(tested, form)
    log_scores = _log_scores(runner, samples, len(form.classes))

    def test_sample(place: int) -> Sample:
        rows, _ = samples.steps_of(torch.tensor([place]))
        name, truth = f"sequence {tested.ids[place]}", int(tested.labels[place])
        return Sample(name, samples.inputs[rows], log_scores[place], truth)

    rows, past = samples.steps_of(torch.arange(len(samples)))
    return Subject(
        runner.model.eval(),
        cross_entropy,
        runner.evaluate(samples),
        form.classes,
        samples.inputs[rows].masked_fill(past[:, :, None], 0),
        tested.labels,
        log_scores,
        "step",
        test_sample,
        [],
        samples.lengths,
    )


def probe(task: Task, config: SequencesConfig, run: Run, weights: str, steps: int | None) -> Probe:
    """Load the model, and some of the test sequences; where each step has a label, the loss is that at their last."""
    if steps is not None:
        raise ArgumentError(f"steps is {steps}, and the sequences are as long as they are: leave it out")
    runner, form, kept = _load(config, run.weights(weights))
    samples = samples_of(_tested(config, form, kept), form)
    places = torch.linspace(0, len(samples) - 1, min(PROBED, len(samples))).round().long()
    rows, past = samples.steps_of(places)
    lengths = samples.lengths[places]
    inputs = (samples.inputs[rows].masked_fill(past[:, :, None], 0), lengths)
    own = torch.arange(len(places))
    targets = samples.targets[rows[own, lengths - 1]] if config.per_step else samples.targets[places]

    def loss(outputs: Tensor) -> Tensor:
        return cross_entropy(outputs[own, lengths - 1] if config.per_step else outputs, targets)

    return Probe(runner.model.eval(), inputs, loss, len(places), rows.size(1), "step")


def model(config: SequencesConfig, run: Run, weights: str) -> nn.Module:
    """A run's model with its weights."""
    return _load(config, run.weights(weights))[0].model


def _tested(config: SequencesConfig, form: Form, kept: Mapping[str, str]) -> Sequences:
    """The test sequences, which must not have been trained on."""
    if config.test is not None:
        found = read_sequences(config.test, replace(config.layout, features=form.features))
        return found.with_classes(form.classes)
    found = splits(config)["test"]
    if found.sha256() != kept["test"]:
        raise DataError(
            f"{config.data}: the test part has other sequences than at the training, and may have some that were "
            "trained on: restore the file, or train again"
        )
    return found


def _names_of_steps(sequences: Sequences) -> list[str]:
    ids = np.repeat(np.array(sequences.ids), sequences.lengths).tolist()
    return [f"sequence {name}, step {step}" for name, step in zip(ids, sequences.clock.shown(), strict=True)]


def _log_scores(runner: Runner, samples: Ragged, classes: int) -> NDArray[np.float32]:
    """The logarithm of the probability of each class, of each sequence (N, classes) or of each step (S, classes)."""
    found = torch.empty(len(samples.targets), classes)
    for batch, outputs in runner.outputs(samples):
        own = outputs.float().log_softmax(dim=-1)
        if samples.per_step:
            rows, past = samples.steps_of(batch.places)
            found[rows[~past]] = own[~past]
        else:
            found[batch.places] = own
    return found.numpy()


def _loss(config: SequencesConfig) -> Loss:
    return tagging_loss if config.per_step else cross_entropy


def _measures(config: SequencesConfig) -> dict[str, Measure]:
    return {"accuracy": right_share if config.per_step else correct_by_argmax}


def _build(form: Form, config: SequencesConfig) -> Labeller:
    numbers, classes = len(form.features), len(form.classes)
    network = (config.hidden_size, config.num_layers, config.dropout, config.bidirectional)
    return built(config, lambda: Labeller(numbers, classes, *network, "each" if config.per_step else config.read))


def _load(config: SequencesConfig, path: Path) -> tuple[Runner, Form, dict[str, str]]:
    """The model of a run with its weights, what the sequences were like, and what else was kept."""
    tensors, kept = read_tensors(path)
    try:
        form = Form.from_json(kept["form"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is not of a model that labels sequences: take the run's own file") from error
    own = _build(form, config)
    fill_weights(own, tensors, path)
    return Runner(own, _loss(config), config, measures=_measures(config)), form, kept
