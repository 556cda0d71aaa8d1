"""A small training: its samples, its model, and what it heard."""

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from gatewise.train.callback import Callback
from gatewise.train.config import TrainConfig
from gatewise.train.metrics import correct_by_argmax
from gatewise.train.runner import Runner
from gatewise.train.samples import Examples


def some_examples(count=23, seed=0):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 4, generator=generator)
    return Examples(inputs, (inputs[:, 0] > 0).long())


def a_runner(model=None, *, own_optimizer=None, augment=None, loss=cross_entropy, **changes):
    """By plain gradient descent on batches of ten, unless told otherwise."""
    config = {"epochs": 2, "batch_size": 10, "eval_batch_size": 10, "optimizer": "sgd", "learning_rate": 0.1}
    if model is None:
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
    return Runner(
        model,
        loss,
        TrainConfig(**config | changes),
        measures={"accuracy": correct_by_argmax},
        optimizer=own_optimizer,
        augment=augment,
    )


def trained(model=None, train=None, others=None, callbacks=(), **changes):
    runner = a_runner(model, **changes)
    runner.train(train or some_examples(), others, callbacks)
    return runner


class Hears(Callback):
    """Calls functions for what it hears."""

    def __init__(self, step=None, evaluation=None, start=None):
        self._start, self._step, self._evaluation = start, step, evaluation

    def start(self, runner):
        if self._start:
            self._start(runner)

    def step(self, runner):
        if self._step:
            self._step(runner)

    def evaluation(self, runner, evaluation, is_best):
        if self._evaluation:
            self._evaluation(runner, evaluation, is_best)


def weights_of(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
