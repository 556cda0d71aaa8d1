"""What hears a training."""

from typing import TYPE_CHECKING

from gatewise.train.progress import Evaluation

if TYPE_CHECKING:
    from gatewise.train.runner import Runner


class Callback:
    """Hears how a training goes; this one does nothing with it. All of the runner may be read at each call.

    Examples
    --------
    >>> class Norms(Callback):
    ...     def step(self, runner):
    ...         print(f"step {runner.progress.step}: gradient norm {runner.progress.gradient_norm:.3f}")
    """

    def start(self, runner: "Runner") -> None:
        """Before the first step, or the first one after a resumption."""

    def step(self, runner: "Runner") -> None:
        """After each step and what it led to; `runner.stop` ends the training here."""

    def evaluation(self, runner: "Runner", evaluation: Evaluation, is_best: bool) -> None:
        """After each look at the splits."""
