"""The confusion matrix and the worst mistakes, as numbers and as a figure."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from gatewise.tasks.mistakes import Verdicts, draw_mistakes
from gatewise.train.progress import Score


def some_verdicts(classes, count=200, right=0.5, colour=False):
    generator = np.random.default_rng(classes)
    truth = generator.integers(0, classes, count)
    logits = generator.normal(size=(count, classes)) + 6 * right * np.eye(classes)[truth]
    log_scores = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    pixels = generator.random((count, 6, 8, *[3] * colour)).astype(np.float32)
    names = tuple(f"class of number {number}" for number in range(classes))
    return Verdicts(Score(1.0, {}, count, 0.1), truth, log_scores, names, pixels)


def test_the_confusion_counts_every_image_once():
    verdicts = some_verdicts(5)
    confusion = verdicts.confusion
    taken_for = verdicts.log_scores.argmax(axis=1)
    for row in range(5):
        for column in range(5):
            assert confusion[row, column] == ((verdicts.truth == row) & (taken_for == column)).sum()


def test_the_worst_mistakes_are_those_of_the_highest_loss_among_the_mistakes():
    verdicts = some_verdicts(4, right=0.2)
    wrong = [place for place in range(200) if verdicts.log_scores[place].argmax() != verdicts.truth[place]]
    loss = {place: -verdicts.log_scores[place, verdicts.truth[place]] for place in wrong}
    worst = verdicts.worst(7)
    assert [mistake.place for mistake in worst] == sorted(wrong, key=lambda place: -loss[place])[:7]
    for mistake in worst:
        assert mistake.loss == pytest.approx(loss[mistake.place], abs=1e-5)
        assert mistake.probability == pytest.approx(np.exp(verdicts.log_scores[mistake.place].max()), abs=1e-5)
        assert mistake.truth == verdicts.names[verdicts.truth[mistake.place]]
        assert mistake.taken_for == verdicts.names[verdicts.log_scores[mistake.place].argmax()]
    assert len(verdicts.worst(1000)) == len(wrong)


@pytest.mark.parametrize(("classes", "right", "ending"), [(2, 0.1, "png"), (16, 0.5, "png"), (3, 9.0, "svg")])
def test_figures_of_few_and_many_classes(tmp_path, classes, right, ending):
    path = tmp_path / f"a.{ending}"
    draw_mistakes(path, some_verdicts(classes, right=right, colour=classes == 2), "a title")
    if ending == "svg":
        assert "0 of 200 images wrong" in path.read_text()
    else:
        with Image.open(path) as image:
            assert image.width > 1000
    assert list(tmp_path.iterdir()) == [path]


def test_names_that_the_font_lacks_or_takes_for_formulas(tmp_path):
    verdicts = dataclasses.replace(some_verdicts(3, right=0.1), names=("猫", "a$b$c", "_^{"))
    draw_mistakes(tmp_path / "a.png", verdicts, "a title")
    assert (tmp_path / "a.png").stat().st_size > 10_000
