"""The command line as it is typed: what it prints, what it leaves, how it refuses."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gatewise.cli import main
from gatewise.cli.printing import Printer
from gatewise.cli.refusal import usage_line
from gatewise.data.idx import write_idx
from gatewise.tasks.digits import DigitsConfig
from gatewise.tasks.task import tasks
from gatewise.train.config import write_config
from gatewise.train.progress import Evaluation, Progress, Score, Sums
from training import a_runner

SMALL = ["--hidden-size", "8", "--num-layers", "1", "--dropout", "0", "--threads", "1"]


def write_mnist(folder, *, count=40, size=(28, 28)):
    generator = np.random.default_rng(0)
    for name in ("train", "t10k"):
        images = generator.integers(0, 256, (count, *size), dtype=np.uint8)
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", (np.arange(count) % 10).astype(np.uint8))


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_mnist(folder)
    return folder


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A run of the digits, of two epochs."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "digits", "--run", str(folder), "--epochs", "2", *SMALL]) == 0
    return folder


@pytest.fixture(scope="module")
def mnist_run(tmp_path_factory):
    """A run of a small set in MNIST's files, of one epoch; and the folder of the set."""
    data = tmp_path_factory.mktemp("data")
    write_mnist(data)
    folder = tmp_path_factory.mktemp("runs") / "mnist"
    assert main(["train", "mnist", "--data", str(data), "--run", str(folder), "--epochs", "1", *SMALL]) == 0
    return folder, data


@pytest.fixture
def check_refused(capsys):
    """Calls the command line, and holds that it ends with status 2, one line on stderr and nothing on stdout."""

    def check(*words, says, printed=False):
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        out, err = capsys.readouterr()
        assert err.count("\n") == 1, err
        assert err.startswith("gatewise: error: ")
        assert re.search(says, err), err
        assert printed or out == ""
        return err

    return check


def prints(capsys, *words):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


# --- train --------------------------------------------------------------------------------------------------


def test_train_says_what_it_does(tmp_path, capsys):
    folder = tmp_path / "a run"
    lines = prints(capsys, "train", "digits", "--run", folder, "--epochs", "2", *SMALL).splitlines()
    assert lines[0] == "data    1,259 train, 179 dev, 359 test images of 8×8 pixels, 8 steps of 8"
    assert lines[1] == "model   LSTM 8→8, 1 layer, 10 classes, 666 parameters"
    assert lines[2] == "recipe  adam 0.002 cosine, batches of 32, 2 epochs, seed 0, 1 thread"
    epoch = r"loss \d\.\d{4}, accuracy \d+\.\d\d%"
    for number, line in enumerate(lines[3:5], start=1):
        assert re.match(
            rf" +{number}/2 train {epoch}   dev {epoch}   test {epoch}   \d+\.\d s   [\d,]+ samples/s", line
        )
    assert re.match(r"best    epoch [12] \(lowest dev loss\): test loss .*, accuracy .*% of 359", lines[5])
    assert re.match(r"run     .*/a run after \d+\.\d s: best.safetensors, checkpoint-\d{9}.safetensors, ", lines[6])
    assert lines[6].endswith("safetensors, config.toml, curves.png, last.safetensors, metrics.jsonl")
    assert lines[7:] == [f"next    gatewise evaluate '{folder}'", f"        gatewise predict '{folder}' image.png"]


def test_without_run_the_folder_has_a_name_of_its_own(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prints(capsys, "train", "digits", "--epochs", "1", *SMALL)
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"digits-\d{4}-\d\d-\d\d-\d{6}", folder.name)


def test_mnist_s_best_is_chosen_by_the_training_loss(data, tmp_path, capsys):
    out = prints(capsys, "train", "mnist", "--data", data, "--run", tmp_path / "run", "--epochs", "1", *SMALL)
    assert "best    epoch 1 (lowest training loss): test loss" in out
    assert "40 train, 40 test images of 28×28 pixels" in out


def test_the_same_line_twice_makes_the_same_bytes(tmp_path, digits_run):
    """In another process too."""
    words = ["train", "digits", "--run", str(tmp_path / "run"), "--epochs", "2", *SMALL]
    subprocess.run([sys.executable, "-m", "gatewise.cli", *words], check=True, capture_output=True)
    for name in ("best.safetensors", "last.safetensors", "config.toml"):
        assert (tmp_path / "run" / name).read_bytes() == (digits_run / name).read_bytes()


def test_ctrl_c_ends_a_training_and_keeps_it(tmp_path):
    folder = tmp_path / "run"
    words = ["train", "digits", "--run", str(folder), "--epochs", "100000", "--schedule", "constant", *SMALL]
    process = subprocess.Popen(
        [sys.executable, "-m", "gatewise.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text().count("\n") >= 6):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert re.search(r"\nstopped by SIGINT after step (\d+), \d+ whole epochs of 100000\n", out)
    assert out.endswith(f"\nnext    gatewise resume {folder}\n")
    assert main(["evaluate", str(folder), "--weights", "last"]) == 0
    assert (folder / "curves.png").exists()


def stopping(monkeypatch, step, number):
    """Have a signal come after a step."""

    def stop(self, runner):
        if runner.progress.step == step:
            signal.raise_signal(number)

    monkeypatch.setattr(Printer, "step", stop)


def test_a_signal_before_the_first_epoch_is_over_and_resume_to_the_end(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping(patch, 3, signal.SIGTERM)
        assert main(["train", "digits", "--run", str(folder), "--epochs", "2", *SMALL]) == 143
    out, err = capsys.readouterr()
    assert err == ""
    assert out.endswith(f"stopped by SIGTERM after step 3, 0 whole epochs of 2\nnext    gatewise resume {folder}\n")
    assert "best " not in out
    assert not (folder / "best.safetensors").exists()
    lines = prints(capsys, "resume", folder).splitlines()
    assert lines[:4] == [
        "data    1,259 train, 179 dev, 359 test images of 8×8 pixels, 8 steps of 8",
        "model   LSTM 8→8, 1 layer, 10 classes, 666 parameters",
        "recipe  adam 0.002 cosine, batches of 32, 2 epochs, seed 0, 1 thread",
        "resumed checkpoint-000000003.safetensors: step 3, epoch 1",
    ]
    assert lines[-2] == f"next    gatewise evaluate {folder}"


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, digits_run, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        stopping(patch, 57, signal.SIGINT)
        assert main(["train", "digits", "--run", str(folder), "--epochs", "2", *SMALL]) == 130
    assert main(["resume", str(folder)]) == 0
    for name in ("best.safetensors", "last.safetensors", "config.toml"):
        assert (folder / name).read_bytes() == (digits_run / name).read_bytes()


def test_what_a_training_skipped_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gatewise.tasks.rows.random_shift", lambda images, *rest: images * nan_at_third(images))
    calls = iter(range(99))

    def nan_at_third(images):
        return float("nan") if next(calls) == 2 else 1.0

    words = ["--epochs", "1", "--nonfinite", "skip", *SMALL]
    out = prints(capsys, "train", "digits", "--run", tmp_path / "run", *words)
    assert "\nskipped 1 of 40 steps, whose loss or gradient was not finite\n" in out


def test_a_training_that_ends_early_says_so(tmp_path, capsys):
    words = ["--learning-rate", "1e-30", "--epochs", "9", "--patience", "2", "--best-by", "accuracy", *SMALL]
    out = prints(capsys, "train", "digits", "--run", tmp_path / "run", *words)
    assert "\nstopped early, 2 evaluations after the best\n" in out
    assert "best    epoch 1 (highest dev accuracy): test loss" in out


def an_evaluation(step=8, epoch=2, whole=True):
    return Evaluation(step, epoch, whole, {"train": Score(0.25, {"accuracy": 0.5}, 100, 2.0)})


def test_a_terminal_gets_a_bar():
    console = Console(force_terminal=True, width=100, record=True)
    printer = Printer(console)
    runner = a_runner(epochs=3)
    runner.steps_an_epoch = 4
    runner.progress = Progress(1, 2, 6, Sums(25.0, 100, {"accuracy": 50.0}, 2.0))
    with printer.bar:
        printer.step(runner)
        row = printer.bar.tasks[0]
        assert (row.completed, row.total, row.fields["epoch"]) == (6, 12, "2/3")
        assert row.fields["means"] == "loss 0.2500, accuracy 50.00%  50 samples/s"
        printer.evaluation(runner, an_evaluation(), is_best=True)
    assert "2/3 train loss 0.2500, accuracy 50.00%   2.0 s   50 samples/s *" in console.export_text()


def test_of_evaluations_that_come_fast_one_a_second_is_printed_and_the_last():
    console = Console(record=True, width=200)
    printer = Printer(console)
    runner = a_runner(epochs=3)
    for step in (1, 2, 3):
        printer.evaluation(runner, an_evaluation(step, 1, whole=False), is_best=False)
    runner.progress.ended = True
    printer.evaluation(runner, an_evaluation(12, 3), is_best=False)
    first, last = console.export_text().splitlines()
    assert first.startswith(" step 1 train loss 0.2500")
    assert last.startswith("    3/3 train loss")
    assert last.endswith("(2 more before)")


def test_where_there_is_no_terminal_the_score_is_not_read(monkeypatch):
    monkeypatch.setattr(Sums, "score", lambda self: pytest.fail("read"))
    Printer(Console(force_terminal=False)).step(a_runner())


# --- evaluate and predict -----------------------------------------------------------------------------------


def test_evaluate_prints_one_json_object(digits_run, capsys):
    out = prints(capsys, "evaluate", digits_run, "--json")
    found = json.loads(out)
    assert list(found) == ["loss", "accuracy", "samples"]
    assert found["samples"] == 359
    lines = [json.loads(line) for line in (digits_run / "metrics.jsonl").read_text().splitlines()]
    assert found["accuracy"] in [line["accuracy"] for line in lines if line["split"] == "test"]


def test_evaluate_says_it_in_words(digits_run, capsys):
    out = prints(capsys, "evaluate", digits_run, "--weights", "last")
    assert re.search(
        r"last weights, test split of digits: loss \d\.\d{4}, accuracy .*% of 359 samples, [\d,]+ sam", out
    )


def test_evaluate_finds_the_data_again_or_takes_them_from_elsewhere(mnist_run, tmp_path, capsys, monkeypatch):
    folder, data = mnist_run
    monkeypatch.chdir(tmp_path)
    stored = json.loads(prints(capsys, "evaluate", folder, "--json"))
    assert stored["samples"] == 40
    assert json.loads(prints(capsys, "evaluate", folder, "--data", data, "--json")) == stored
    write_mnist(tmp_path, count=30)
    assert json.loads(prints(capsys, "evaluate", folder, "--data", tmp_path, "--json"))["samples"] == 30


def test_predict_prints_one_json_object(digits_run, tmp_path, capsys):
    Image.new("L", (8, 8), 200).save(tmp_path / "a.png")
    found = json.loads(prints(capsys, "predict", digits_run, tmp_path / "a.png", "--json"))
    assert list(found) == ["label", "scores"]
    assert len(found["scores"]) == 10
    assert sum(found["scores"]) == pytest.approx(1)
    assert found["label"] == int(np.argmax(found["scores"]))


def test_predict_shows_what_it_read(digits_run, tmp_path, capsys):
    image = np.zeros((8, 8), np.uint8)
    image[0, 1], image[7, 7] = 255, 128
    Image.fromarray(image).save(tmp_path / "a.png")
    lines = prints(capsys, "predict", digits_run, tmp_path / "a.png").splitlines()
    assert lines[:8] == ["  @@", "", "", "", "", "", "", " " * 14 + "++"]
    label = int(lines[8].removeprefix("label "))
    scores = [float(line.split()[1].rstrip("%")) for line in lines[9:]]
    assert [int(line.split()[0]) for line in lines[9:]] == list(range(10))
    assert label == int(np.argmax(scores))
    assert "#" in lines[9 + label]


# --- help ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], ["train", "resume", "evaluate", "predict", "doctor", "gatewise train digits", "--version"]),
        (["train"], ["digits", "mnist", "config.toml", "Ctrl-C", "--data"]),
        (["train", "digits"], ["8 steps of 8", "CC BY 4.0", "--hidden-size INT", "(default: 80)", "--run FOLDER"]),
        (["train", "mnist"], ["28 steps of 28", "(default: 128)", "--data PATH", "--normalize FLOAT FLOAT", "sgd"]),
        (["resume"], ["RUN", "byte for byte", "kill -9", "gatewise resume runs/digits"]),
        (["evaluate"], ["--weights {best,last}", "--json", "accuracy"]),
        (["predict"], ["ink on a dark ground", "softmax", "gatewise predict runs/mnist seven.png"]),
        (["doctor"], ["never run", "batch-and-time", "gate-order", "gatewise doctor train.py", "exit status is 0"]),
    ],
)
def test_help_is_worth_reading(words, says, capsys):
    out = prints(capsys, *words, "--help")
    for words_said in says:
        assert words_said in out


def test_every_setting_has_its_help(capsys):
    for name, task in tasks().items():
        out = prints(capsys, "train", name, "--help")
        text = " ".join(line.strip("│| ") for line in out.splitlines())
        _, _, *options = re.split(
            r" (?=--[a-z-]+ (?:INT|FLOAT|PATH|FOLDER|FILE|NAME|\{| ))", text[text.index("options -") :]
        )
        assert len(options) >= len(dataclasses.fields(task.config)), options
        for option in options:
            said = re.split(r"\((?:default|required)", option)[0]
            assert len(said.split()) > 6, option


def test_help_does_not_wait_for_torch():
    code = "import sys, gatewise.cli as cli; cli.main(['train', 'mnist', '--help']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_output_that_cannot_be_written_says_what_to_do(digits_run):
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "gatewise.cli", "evaluate", str(digits_run), "--json"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr == "gatewise: error: the output cannot be written (No space left on device): make room\n"


def test_version(capsys):
    assert re.fullmatch(r"gatewise \d+\.\d+\.\d+\n", prints(capsys, "--version"))


def test_bench(capsys, tmp_path):
    words = ["--quick", "--sizes", "2,3,4,5,1", "--kinds", "forward", "--json", tmp_path / "b.json"]
    printed = prints(capsys, "bench", *words, "--figure", tmp_path / "b.svg")
    assert re.search(r"\(2, 3, 4, 5, 1, 1\) +forward ", printed)
    assert json.loads((tmp_path / "b.json").read_text())["machine"]["threads"] >= 1
    assert "</svg>" in (tmp_path / "b.svg").read_text()


def test_bench_of_variants(capsys, tmp_path):
    printed = prints(capsys, "bench", "--variants", "peephole", "--quick", "--sizes", "2,3,4,5,1")
    assert re.search(r"^peephole +(kernel|composite) +[\d.]+ ±.*x ±.*x ±", printed, re.MULTILINE)


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], r"train, tune, resume, evaluate, predict, .*doctor.*; see gatewise --help"),
        (["trian"], r"Unrecognized options: trian"),
        (["train"], r"digits, mnist.*see gatewise train --help$"),
        (["train", "mnist"], r"--data PATH; see gatewise train mnist --help"),
        (["train", "digits", "--epochs", "x"], r"--epochs: needed is a whole number, given 'x'; see"),
        (
            ["train", "digits", "--epochs", "0"],
            r"error: epochs is 0, needed is a number from 1 to below 2\^31.*; see gatewise train digits --help$",
        ),
        (["train", "digits", "--epochs"], r"--epochs"),
        (["train", "digits", "--learning-rate", "x"], r"--learning-rate: needed is a number, given 'x'; see"),
        (["train", "digits", "--hidden-size", "9" * 20], r"hidden_size is 9{20}, needed is a number from 1 to below"),
        (["train", "digits", "--max-shift", "8"], r"max_shift is 8, needed is less than the images' 8 pixels"),
        (["train", "digits", "--learning-rate", "nan"], r"learning_rate is nan, needed is a number above 0"),
        (["train", "digits", "--max-shift", "-1"], r"max_shift is -1, needed is a number of at least 0"),
        (["train", "digits", "--optimizer", "lion"], r"'lion'.*'adam', 'sgd'"),
        (["train", "digits", "--normalize", "0.5"], r"--normalize"),
        (["train", "digits", "--hiden-size", "3"], r"Unrecognized options: --hiden-size.*Perhaps.*--hidden-size INT"),
        (
            ["train", "digits", "--dev-fraction", "0.9"],
            r"dev_fraction is 0.9, needed is below 0.8, as the test split is 0.2",
        ),
        (["train", "digits", "--dev-fraction", "0.0001"], r"set aside are 0.2 and 0.0001, which leaves a part.*empty"),
        (["train", "digits", "--num-layers", "1"], r"dropout is 0.3, needed is 0 with a single layer"),
        (["bench", "--sizes", "15"], r"15.*see gatewise bench --help"),
        (["bench", "--peers", "keras"], r"keras"),
        (
            ["bench", "--isa", "avx9"],
            r"error: isa is avx9, needed is one of .*, which this machine has: change it; see gatewise bench --help$",
        ),
        (["bench", "--variants", "gru"], r"gru"),
        (["bench", "--variants"], r"variants is empty, needed is none, all, or one or more of peephole, .*--help$"),
        (["bench", "--variants", "all", "--peers", "jax"], r"peers is jax and variants are asked for.*leave out peers"),
        (["resume"], r"Missing.*RUN.*; see gatewise resume --help$"),
        (["resume", "x", "--epochs", "3"], r"Unrecognized.* options: --epochs.*; see gatewise resume --help$"),
        (["evaluate"], r"Missing.*RUN"),
        (["doctor"], r"PATH_OR_MODULE.*see gatewise doctor --help$"),
        (["doctor", "nowhere"], r"error: nowhere is no file, folder or module: give one that exists$"),
        (["predict", "x"], r"Missing.*IMAGE"),
        (["evaluate", "x", "--weights", "worst"], r"'worst'.*'best', 'last'"),
    ],
)
def test_bad_words_and_values(words, says, check_refused):
    check_refused(*words, says=says)


def test_missing_and_broken_data(data, tmp_path, check_refused):
    train = ["train", "mnist", "--run", tmp_path / "run", "--data"]
    check_refused(*train, tmp_path / "nowhere", says="nowhere is no folder: give the one with MNIST's four IDX files")
    images = data / "train-images-idx3-ubyte.gz"
    content = images.read_bytes()
    images.write_bytes(content[: len(content) // 2])
    check_refused(*train, data, says="train-images-idx3-ubyte.gz is a truncated or damaged gzip file")
    images.unlink()
    check_refused(*train, data, says="holds no train-images-idx3-ubyte, gzipped or not: put")
    write_idx(data / "train-images-idx3-ubyte", np.zeros((39, 28, 28), np.uint8))
    check_refused(*train, data, says="39 images but 40 labels")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_taken(digits_run, check_refused):
    before = sorted(digits_run.iterdir())
    check_refused(
        "train", "digits", "--run", digits_run, *SMALL, says="is not empty, needed is a new folder: give another"
    )
    assert sorted(digits_run.iterdir()) == before


def test_a_loss_that_is_not_finite(tmp_path, check_refused):
    words = ["--optimizer", "sgd", "--learning-rate", "1e38", "--epochs", "3", *SMALL]
    says = (
        r"the loss is (nan|inf) .* in epoch \d at step \d+ .*, needed are finite numbers: .*; try a lower learning rate"
    )
    check_refused("train", "digits", "--run", tmp_path / "run", *words, says=says, printed=True)


@pytest.mark.parametrize("command", ["evaluate", "predict", "resume"])
def test_a_run_folder_that_is_none(command, tmp_path, check_refused):
    words = ["image.png"] if command == "predict" else []
    check_refused(
        command, tmp_path / "nowhere", *words, says=r"nowhere is no run folder \(no config.toml\): give one that"
    )
    check_refused(command, tmp_path, *words, says="is no run folder")
    (tmp_path / "config.toml").write_text("epochs = ")
    check_refused(command, tmp_path, *words, says="config.toml cannot be read")
    (tmp_path / "config.toml").write_text('task = "digits"\nlearningrate = 3')
    check_refused(command, tmp_path, *words, says="learningrate is no setting of digits, the nearest is learning_rate")
    write_config(tmp_path / "config.toml", "digits", DigitsConfig())
    if command != "resume":  # which begins where there is a configuration and no more
        check_refused(command, tmp_path, *words, says="best.safetensors is missing")


def test_damaged_weights(digits_run, tmp_path, check_refused):
    (tmp_path / "config.toml").write_bytes((digits_run / "config.toml").read_bytes())
    content = bytearray((digits_run / "best.safetensors").read_bytes())
    for damaged, says in (
        (content[:100], "cannot be read as tensors"),
        (b"", "cannot be read as tensors"),
        (content[:-1] + bytes([content[-1] ^ 1]), "is damaged"),
    ):
        (tmp_path / "best.safetensors").write_bytes(damaged)
        check_refused("evaluate", tmp_path, "--json", says=says)


def test_data_that_have_gone_or_do_not_fit(mnist_run, digits_run, tmp_path, check_refused):
    folder, _ = mnist_run
    (tmp_path / "run").mkdir()
    for name in ("best.safetensors", "config.toml"):
        (tmp_path / "run" / name).write_bytes((folder / name).read_bytes())
    config = tmp_path / "run" / "config.toml"
    config.write_text(re.sub(r'data = ".*"', 'data = "/gone"', config.read_text()))
    check_refused("evaluate", tmp_path / "run", says="/gone is no folder: give the one")
    write_mnist(tmp_path, size=(20, 20))
    check_refused("evaluate", folder, "--data", tmp_path, says=r"have 20×20 pixels .*needed are 28×28")
    check_refused(
        "evaluate", digits_run, "--data", tmp_path, says="the data of digits come with gatewise: leave it out"
    )


def test_images_that_do_not_fit(digits_run, tmp_path, check_refused):
    path = tmp_path / "a.png"
    check_refused("predict", digits_run, path, says="a.png is no file")
    Image.new("L", (30, 32)).save(path)
    check_refused(
        "predict", digits_run, path, "--json", says=r"a.png is 30×32 pixels \(width × height\), needed are 8×8: crop"
    )
    Image.new("RGB", (8, 8), (255, 0, 0)).save(path)
    check_refused("predict", digits_run, path, says="is a colour image, needed is a grey one")
    path.write_bytes(b"\x89PNG\r\n\x1a\n")
    check_refused("predict", digits_run, path, says="cannot be read as an image")


def test_a_full_disk_is_a_line_as_well(tmp_path, check_refused, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    says = "No space left on device"
    check_refused("train", "digits", "--run", tmp_path / "run", "--epochs", "1", *SMALL, says=says, printed=True)


def test_a_reader_who_leaves_gets_no_traceback(digits_run):
    for words in (["--help"], ["evaluate", str(digits_run)]):
        process = subprocess.Popen(
            [sys.executable, "-m", "gatewise.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert (process.wait(timeout=60), err) == (141, b"")


def test_as_a_process_a_mistake_is_a_line_and_status_2():
    done = subprocess.run(
        [sys.executable, "-m", "gatewise.cli", "evaluate", "nowhere"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("gatewise: error: nowhere is no run folder")
    assert done.stderr.count("\n") == 1


def test_output_that_the_terminal_cannot_show_is_no_traceback():
    done = subprocess.run(
        [sys.executable, "-m", "gatewise.cli", "train", "--help"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u2022 mnist" in done.stdout


FRAMED = """╭─ Value error ───────────────╮
│ Error parsing --epochs: 'x' │
│   is no number.             │
│ ─────────────────────────── │
│ Argument helptext:          │
│     --epochs INT            │
│         How often.          │
│ ─────────────────────────── │
│ For full helptext, see      │
│     gatewise --help         │
╰─────────────────────────────╯"""
DASHED = """ Value error
 ----------------------------
  Error parsing --epochs: 'x'
    is no number.
  ---------------------------
  Argument helptext:
      --epochs INT
          How often.
  ---------------------------
  For full helptext, see
      gatewise --help
"""


@pytest.mark.parametrize("box", [FRAMED, DASHED])
def test_the_box_of_tyro_becomes_a_line(box):
    assert usage_line(box, "gatewise train") == "Error parsing --epochs: 'x' is no number; see gatewise train --help"


def test_a_box_that_tyro_may_draw_otherwise_is_still_one_line():
    assert usage_line("something\nelse", "gatewise") == "something else; see gatewise --help"


def test_damaged_runs_do_not_hide_the_others(tmp_path, capsys):
    words = ["--epochs", "1", "--hidden-size", "4", "--num-layers", "1", "--dropout", "0"]
    for name in ("whole", "settings", "metrics"):
        assert main(["train", "digits", *words, "--run", str(tmp_path / name)]) == 0
    with (tmp_path / "settings" / "config.toml").open("a") as file:
        file.write("foo = 1\n")
    with (tmp_path / "metrics" / "metrics.jsonl").open("a") as file:
        file.write("{broken\n")
    capsys.readouterr()
    assert main(["runs", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert str(tmp_path / "whole") in out
    assert [line.partition(": ")[0] for line in err.splitlines()] == ["gatewise"] * 2
    assert "foo is no setting of digits" in err and "metrics.jsonl" in err


def test_a_size_needs_two_numbers(capsys):
    assert main(["train", "images", "--data", "x", "--size", "8"]) == 2
    assert "given is '8', needed is INT INT; see gatewise train images --help" in capsys.readouterr().err
