"""Images of one's own: what is read, what is refused, and what a training makes of it."""

import dataclasses
import io
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gatewise.cli import main
from gatewise.data import image_folder
from gatewise.data.image_folder import find_images, read_images, read_picture
from gatewise.errors import ArgumentError, DataError
from gatewise.tasks import rows
from gatewise.tasks.images import ImagesConfig
from gatewise.tasks.rows import RowClassifier
from gatewise.tasks.task import task_of, tasks
from gatewise.train import keeper
from gatewise.train.config import read_config, write_config
from gatewise.train.run import Run
from of_tasks import same_bytes_however_trained, train

SMALL = {"hidden_size": 8, "num_layers": 1, "dropout": 0.0, "threads": 1, "epochs": 3}
COUNT = 20
COLOURS = {"blue": (20, 30, 220), "green": (30, 210, 40), "red": (200, 20, 30)}


def make_folder(folder, size=(6, 10), count=COUNT):
    """Of each colour as many images of noise about it, every other one as JPEG."""
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.clip(generator.normal(colour, 20, (*size, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.{'jpg' if number % 2 else 'PNG'}", quality=95)
    return folder


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    """The curves of a training take longer to draw than such a training does; other tests look at them."""
    monkeypatch.setattr(keeper, "draw_curves", lambda *args, **kwargs: None)


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "images")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder that no test changes."""
    return make_folder(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def colour_run(data, tmp_path_factory):
    """A run on the images in colour, and its settings."""
    config = ImagesConfig(data=data, colour=True, learning_rate=0.02, **SMALL | {"epochs": 6})
    folder = tmp_path_factory.mktemp("runs") / "colour"
    train(config, folder)
    return Run.open(folder)


def save(path, pixels, **how):
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **how)
    return path


# --- one picture --------------------------------------------------------------------------------------------


def test_grey_and_colour(tmp_path):
    path = save(tmp_path / "a.png", [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]])
    assert read_picture(path).tolist() == [[76, 150, 29, 9]]
    assert read_picture(path, colour=True).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]]
    grey = save(tmp_path / "grey.png", [[0, 77]])
    assert read_picture(grey).tolist() == [[0, 77]]
    assert read_picture(grey, colour=True).tolist() == [[[0, 0, 0], [77, 77, 77]]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_of_the_files(tmp_path, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.fromarray(np.tile(np.uint8([[0, 255]]), (8, 4)).repeat(8, axis=1)).convert(mode).save(path)
    pixels = read_picture(path)
    assert pixels.shape == (8, 64)
    assert pixels[0, [0, 7]].max() < 20
    assert pixels[0, [8, 15]].min() > 235


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(np.uint16([[0, 257 * 77, 65535]])).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").tolist() == [[0, 77, 255]]
    assert read_picture(tmp_path / "a.png", colour=True)[0, 1].tolist() == [77, 77, 77]


def test_resizing_averages_and_stretches(tmp_path):
    path = save(tmp_path / "a.png", np.tile([[0, 200]], (8, 8)))
    assert read_picture(path, size=(2, 4)).shape == (2, 4)
    assert np.abs(read_picture(path, size=(2, 4)).astype(int) - 100).max() < 25  # and no single pixel of 0 or 200
    assert read_picture(path, size=(8, 16)).tolist() == read_picture(path).tolist()


def test_the_orientation_of_a_camera_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    path = save(tmp_path / "a.png", [[10, 20, 30], [40, 50, 60]], exif=exif)
    assert read_picture(path).tolist() == [[40, 10], [50, 20], [60, 30]]


def test_damaged_exif_is_no_reason_to_refuse(tmp_path):
    path = save(tmp_path / "a.jpg", np.full((8, 8), 99), exif=b"Exif\0\0MM\0\x2a\xff\xff")
    assert read_picture(path)[0, 0] == 99


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_every_truncation_is_refused_or_whole(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    save(path, np.random.default_rng(0).integers(0, 256, (9, 9, 3)))
    whole, content = read_picture(path), path.read_bytes()
    messages = []
    for length in range(0, len(content), 3):
        path.write_bytes(content[:length])
        try:
            pixels = read_picture(path)
        except DataError as error:
            messages.append(str(error))
        else:
            np.testing.assert_array_equal(pixels, whole)
    assert len(messages) > len(content) / 3 - 8
    assert all(message.startswith(f"{path} cannot be read as an image (") for message in messages)


def test_damage_anywhere_is_refused_in_a_line(tmp_path):
    """Bytes changed at random: an image that is still one, or a DataError; nothing else, and no warning."""
    generator = np.random.default_rng(0)
    messages = []
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(buffer, kind)
        for _ in range(150):
            content = bytearray(buffer.getvalue())
            for place in generator.integers(0, len(content), 3):
                content[place] = generator.integers(256)
            (tmp_path / "a.png").write_bytes(content)
            try:
                assert read_picture(tmp_path / "a.png", size=(4, 4)).shape == (4, 4)
            except DataError as error:
                messages.append(str(error))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def test_pictures_that_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.png"

    def refused(message):
        with pytest.raises(DataError, match=message):
            read_picture(path)

    refused("is no file: give the path")
    path.write_bytes(b"")
    refused("cannot be read as an image .*: replace it, or move it out")
    Image.new("RGBA", (4, 4), (1, 2, 3, 254)).save(path)
    refused("is partly transparent, needed is an opaque image: save it without")
    frames = [Image.new("L", (4, 4), grey) for grey in (0, 9)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    refused("holds 2 frames, needed is one")
    Image.new("L", (40, 40)).save(path)
    for limit in (1000, 100):  # Pillow warns above the limit, and refuses above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        refused(f"more than {limit:,} pixels, too many to unpack: make it smaller")
    path.unlink()
    os.mkfifo(path)  # which would be waited for
    refused("is no file")


# --- a folder -----------------------------------------------------------------------------------------------


def test_classes_and_files_are_in_the_order_of_their_names(folder):
    (folder / ".hidden").mkdir()
    (folder / "red" / ".DS_Store").write_bytes(b"")
    (folder / "README.txt").write_text("mine")
    found = find_images(folder)
    assert list(found) == ["blue", "green", "red"]
    assert [path.name for path in found["red"]][:3] == ["00.PNG", "01.jpg", "02.PNG"]
    images = read_images(found, colour=True)
    assert (len(images), images.size, images.colour, images.classes) == (60, (6, 10), True, 3)
    assert images.names == ("blue", "green", "red")
    assert images.labels.tolist() == [label for label in range(3) for _ in range(COUNT)]
    for place in (0, 21, 59):
        np.testing.assert_array_equal(images.images[place], read_picture(images.files[place], colour=True))
    assert images.take(np.array([59, 0])).files == (images.files[59], images.files[0])


def test_what_was_done_to_the_images_is_said(folder):
    found = find_images(folder)
    assert read_images(found, colour=True).note == ""
    save(folder / "red" / "00.PNG", np.full((6, 10, 3), 7))  # grey in fact
    assert read_images(found).note == "59 of 60 turned from colour to grey, --colour keeps it"
    assert read_images(found, size=(3, 4), colour=True).note == "60 of 60 resized to 3×4 (Pillow's bilinear filter)"


def remove_images(folder):
    for path in folder.iterdir():
        path.unlink()


def into_one_class(folder):
    for name in ("green", "red"):
        shutil.rmtree(folder / name)


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])


BAD_FOLDERS = {
    "no folder": (shutil.rmtree, r"images is no folder: give one that holds a folder of images for each class"),
    "no classes": (
        lambda folder: [shutil.rmtree(path) for path in folder.iterdir()],
        r"images holds no class folders, needed are at least 2: make a folder",
    ),
    "one class": (into_one_class, r"images holds only one class, blue, needed are at least 2: make a folder"),
    "an empty class": (
        lambda folder: remove_images(folder / "green"),
        r"images/green holds no images, needed are PNG or JPEG files .*: put some there or remove the folder",
    ),
    "an image beside the classes": (
        lambda folder: shutil.copy(folder / "red/01.jpg", folder),
        r"images/01.jpg lies outside of the class folders.*: move it into its own",
    ),
    "another file": (
        lambda folder: (folder / "red/a.webp").touch(),
        r"images/red/a.webp is no PNG or JPEG file, needed are .*: convert it or move it away",
    ),
    "a folder in a class": (
        lambda folder: (folder / "red/more.png").mkdir(),
        r"images/red/more.png is a folder, needed are images",
    ),
    "mixed sizes": (
        lambda folder: save(folder / "green/04.PNG", np.zeros((7, 10))),
        r"images/green/04.PNG has 7×10 pixels \(rows × columns\) and \S*images/blue/00.PNG has 6×10, needed is one "
        r"size: give --size ROWS COLUMNS",
    ),
    "a truncated image": (
        lambda folder: truncate(folder / "green/04.PNG"),
        r"images/green/04.PNG cannot be read as an image \(.*\): replace it",
    ),
    "no image": (
        lambda folder: (folder / "green/05.jpg").write_text("not mine"),
        r"images/green/05.jpg cannot be read as an image \(cannot identify image file\): replace it",
    ),
    "a dead link": (lambda folder: (folder / "red/a.png").symlink_to("nowhere"), r"images/red/a.png is no file"),
    "few images": (
        lambda folder: [path.unlink() for path in sorted((folder / "red").iterdir())[5:]],
        r"images/red holds 5 images, needed are at least 6 for some in each split \(test_fraction 0.2, "
        r"dev_fraction 0.1\): add images, or change the fractions",
    ),
}


@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_folder_that_is_not_in_order_is_a_line(folder, tmp_path, capsys, name):
    spoil, says = BAD_FOLDERS[name]
    spoil(folder)
    assert main(["train", "images", "--data", str(folder), "--run", str(tmp_path / "run")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"gatewise: error: .*{says}.*\n", err), err
    assert not (tmp_path / "run").exists()


def test_more_images_than_fit_into_memory(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "_memory", lambda: 60 * 60 * 5 - 1)
    with pytest.raises(DataError, match=r"60 images of 6×10 pixels need .* make them smaller with --size"):
        read_images(find_images(folder))
    assert read_images(find_images(folder), size=(6, 9)).size == (6, 9)


def test_as_many_images_as_are_said_to_be_needed_do(folder):
    for path in sorted((folder / "red").iterdir())[6:]:
        path.unlink()
    sets = tasks()["images"].splits(ImagesConfig(data=folder))
    assert all(set(images.labels.tolist()) == {0, 1, 2} for images in sets.values())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_fraction": 0.0}, "test_fraction is 0.0, needed is a number above 0 and below 1"),
        ({"test_fraction": 0.5, "dev_fraction": 0.5}, "dev_fraction is 0.5, needed is below 0.5"),
        ({"size": (0, 8)}, r"size is 0 8, needed is rows and columns from 1 to 4,096"),
        ({"size": (8, 5000)}, "from 1 to 4,096"),
    ],
)
def test_settings_out_of_range(data, changes, says):
    with pytest.raises(ArgumentError, match=says):
        ImagesConfig(data=data, **changes)


# --- splits -------------------------------------------------------------------------------------------------


def test_each_class_is_divided_alike_and_by_the_seed(data):
    task, config = tasks()["images"], ImagesConfig(data=data, seed=3)
    sets = task.splits(config)
    counts = {name: np.bincount(images.labels).tolist() for name, images in sets.items()}
    assert counts == {"train": [14] * 3, "dev": [2] * 3, "test": [4] * 3}
    files = [file for images in sets.values() for file in images.files]
    assert len(set(files)) == len(files) == 60
    assert sets["test"].files != task.splits(dataclasses.replace(config, seed=4))["test"].files
    assert "dev" not in task.splits(dataclasses.replace(config, dev_fraction=0.0))


def test_the_test_images_are_read_alone(folder):
    task, config = tasks()["images"], ImagesConfig(data=folder, colour=True, size=(4, 5))
    sets = task.splits(config)
    for name in ("train", "dev"):
        for file in sets[name].files:
            Path(file).write_bytes(b"")
    alone = task.test_set(config)
    assert alone.files == sets["test"].files
    assert alone.sha256() == sets["test"].sha256()


def test_settings_come_back_from_the_file(data, tmp_path):
    for config in (ImagesConfig(data=data), ImagesConfig(data=data, size=(3, 4), colour=True, read="columns")):
        write_config(tmp_path / "config.toml", "images", config)
        assert read_config(tmp_path / "config.toml", {"images": ImagesConfig}) == ("images", config)


# --- the model ----------------------------------------------------------------------------------------------


def test_columns_are_the_rows_of_the_image_on_its_side():
    images = torch.randn(2, 5, 7)
    torch.manual_seed(0)
    by_columns = RowClassifier(5, 4, 1, 3, read="columns")
    by_rows = RowClassifier(5, 4, 1, 3)
    by_rows.load_state_dict(by_columns.state_dict())
    torch.testing.assert_close(by_columns(images), by_rows(images.transpose(1, 2).contiguous()))


def test_a_step_in_colour_has_three_numbers_a_pixel():
    seen = []
    model = RowClassifier(3 * 5, 4, 1, 3, read="columns")
    model.lstm.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(2, 5, 7, 3)
    model(images)
    assert seen[0].shape == (2, 7, 15)
    assert torch.equal(seen[0][1, 4], images[1, :, 4].flatten())


# --- training and afterwards --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"colour": True, "mirror": True, "max_shift": 1, "max_turn": 10.0},
        {"size": (4, 7), "read": "columns"},
        {"colour": True, "read": "columns", "mirror": True},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_repeated_and_resumed_runs_give_the_same_bytes(data, tmp_path, changes):
    config = ImagesConfig(data=data, **SMALL, **changes)
    same_bytes_however_trained(config, tmp_path, 4)


def test_mirroring_and_columns_change_the_training(data, tmp_path):
    for name, changes in {"plain": {}, "mirror": {"mirror": True}, "columns": {"read": "columns"}}.items():
        train(ImagesConfig(data=data, **SMALL | {"epochs": 1}, **changes), tmp_path / name)
    assert len({(tmp_path / name / "last.safetensors").read_bytes() for name in ("plain", "mirror", "columns")}) == 3


def test_colours_are_told_apart(colour_run):
    task, config = task_of(colour_run)
    score = task.runner().evaluate(task, config, colour_run, "best")
    assert (score["accuracy"], score.samples) == (1.0, 12)


def test_predictions_equal_the_evaluation(colour_run):
    task, config = task_of(colour_run)
    score = task.runner().evaluate(task, config, colour_run, "best")
    images = task.test_set(config)
    losses, right = [], []
    for file, label in zip(images.files, images.labels, strict=True):
        prediction = task.runner().predict(config, colour_run, "best", file)
        assert prediction.names == ["blue", "green", "red"]
        losses.append(-np.log(prediction.scores[label]))
        right.append(prediction.label == label)
    assert np.mean(losses) == pytest.approx(score.loss, rel=1e-5)
    assert np.mean(right) == score["accuracy"]
    verdicts = task.runner().judge(task, config, colour_run, "best")
    assert (verdicts.score.loss, verdicts.score.measures) == (score.loss, score.measures)
    assert np.diag(verdicts.confusion).sum() == score["accuracy"] * score.samples


def test_an_image_of_another_size_is_resized_only_as_trained(data, colour_run, tmp_path):
    path = save(tmp_path / "big.png", np.full((60, 100, 3), COLOURS["red"]))
    _, config = task_of(colour_run)
    with pytest.raises(DataError, match=r"60×100 pixels \(rows × columns\), needed are 6×10: resize it, or train with"):
        rows.predict(config, colour_run, "best", str(path))
    config = ImagesConfig(data=data, colour=True, size=(6, 10), **SMALL)
    train(config, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    small = save(tmp_path / "small.png", np.full((6, 10, 3), COLOURS["red"]))
    predictions = [rows.predict(config, run, "best", str(file)) for file in (path, small)]
    assert predictions[0].scores == predictions[1].scores


def test_a_test_split_of_other_images_is_refused(folder, tmp_path):
    config = ImagesConfig(data=folder, **SMALL)
    train(config, tmp_path / "run")
    task, run = tasks()["images"], Run.open(tmp_path / "run")
    moved = tmp_path / "moved"
    folder.rename(moved)
    at_home = task.with_data(config, moved)
    assert task.runner().evaluate(task, at_home, run, "best").samples == 12
    shutil.copy(moved / "red/00.PNG", moved / "red/0.PNG")  # one more moves others from the training to the test
    with pytest.raises(DataError, match=r"other images than at the training, and may have some that were trained on"):
        task.runner().evaluate(task, at_home, run, "best")
    (moved / "red").rename(moved / "orange")
    with pytest.raises(DataError, match=r"the classes are blue, green, orange, needed are blue, green, red"):
        task.runner().evaluate(task, at_home, run, "best")


def test_evaluate_with_a_figure(colour_run, tmp_path, capsys):
    def prints(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    run = colour_run.folder
    plain = json.loads(prints("evaluate", run, "--json"))
    found = json.loads(prints("evaluate", run, "--figure", tmp_path / "a.png", "--json"))
    assert list(found) == ["loss", "accuracy", "samples", "classes", "confusion", "mistakes"]
    assert {name: found[name] for name in plain} == plain
    assert found["classes"] == ["blue", "green", "red"]
    assert found["confusion"] == [[4, 0, 0], [0, 4, 0], [0, 0, 4]]
    assert found["mistakes"] == []
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
    assert f"wrote {tmp_path / 'b.pdf'}" in prints("evaluate", run, "--figure", tmp_path / "b.pdf")
    assert main(["evaluate", str(run), "--figure", "a.jpg"]) == 2
    assert "figure is a.jpg, needed is a name that ends in .png, .pdf, .svg" in capsys.readouterr().err


def test_the_digits_have_mistakes_too(tmp_path, capsys):
    run = str(tmp_path / "run")
    small = ["--hidden-size", "8", "--num-layers", "1", "--dropout", "0", "--epochs", "1", "--threads", "1"]
    assert main(["train", "digits", "--run", run, "--read", "columns", *small]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--figure", str(tmp_path / "a.png"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    confusion = np.array(found["confusion"])
    assert confusion.shape == (10, 10)
    assert confusion.sum() == 359
    assert np.trace(confusion) / 359 == pytest.approx(found["accuracy"])
    assert len(found["mistakes"]) == 12
    assert main(["evaluate", run, "--figure", str(tmp_path / "a.png")]) == 0
    assert len(re.findall(r"test image \d+ is \d, taken for \d \(.*%\), loss", capsys.readouterr().out)) == 12


def test_sequences_have_no_pictures(tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["train", "digit-sum", "--run", run, "--epochs", "1", "--dev-every", "0", "--threads", "1"]) == 0
    capsys.readouterr()
    assert main(["evaluate", run, "--figure", str(tmp_path / "a.png")]) == 2
    assert "figure is for tasks with images, and digit-sum has sequences: leave it out" in capsys.readouterr().err


def test_predict_prints_the_names(colour_run, data, capsys):
    words = ["predict", str(colour_run.folder), str(data / "green/00.PNG")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[6] == "label green"
    assert [line.split()[0] for line in lines[7:]] == ["blue", "green", "red"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["label"], found["name"], found["names"]) == (1, "green", ["blue", "green", "red"])


def test_the_training_says_what_it_read(data, tmp_path, capsys):
    words = ["train", "images", "--data", str(data), "--run", str(tmp_path / "run"), "--size", "4", "5"]
    assert main([*words, "--epochs", "1", "--read", "columns", "--threads", "1"]) == 0
    out = capsys.readouterr().out
    assert "data    42 train, 6 dev, 12 test images of 4×5 pixels, 5 steps of 4\n" in out
    assert "read    60 of 60 resized to 4×5 (Pillow's bilinear filter); 60 of 60 turned from colour to grey" in out
    assert "classes blue, green, red\n" in out


def test_help_is_worth_reading(capsys):
    assert main(["train", "images", "--help"]) == 0
    out = capsys.readouterr().out
    for said in ("a folder of PNG or JPEG files for each class", "--size", "--colour", "--mirror", "{rows,columns}"):
        assert said in " ".join(re.sub("[│╭╮╰╯─]", " ", out).split()), said
    assert main(["evaluate", "--help"]) == 0
    assert "--figure FILE" in capsys.readouterr().out
