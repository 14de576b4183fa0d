"""Images in class folders and zip files."""

import io
import itertools
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from data_cases import PARTS, data_error, listing
from PIL import Image

from hypernet_tf import data
from hypernet_tf.data import folders

CLASSES = ("cat", "dog", "owl")


def picture(number, shape=(6, 5, 3)):
    """An image uint8 whose first pixel is its number."""
    image = np.random.default_rng(number).integers(0, 256, shape, np.uint8)
    image[0, 0] = number
    return image


def encoded(image, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, kind)
    return stream.getvalue()


def write(folder, count=10, first=0, classes=CLASSES, shape=(6, 5, 3)):
    """`count` images of each class, numbered on from `first`."""
    numbers = itertools.count(first)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for _ in range(count):
            number = next(numbers)
            (folder / name / f"{number:03}.png").write_bytes(encoded(picture(number, shape)))


def zip_of(folder, path, top=""):
    """A zip file of a folder, without entries for the folders."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, top + file.relative_to(folder).as_posix())


def check(dataset, sizes, count=10, shape=(6, 5, 3)):
    """Each image is there once, whole and with its label; returns the numbers of each part."""
    assert dataset.classes == CLASSES
    numbers = {}
    for part, size in zip(PARTS, sizes, strict=True):
        split = getattr(dataset, part)
        assert split.images.shape == (size, *shape)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        numbers[part] = split.images[:, 0, 0, 0].tolist()
        assert [number % (3 * count) // count for number in numbers[part]] == split.y.tolist()
        for image, number in zip(split.images, numbers[part], strict=True):
            np.testing.assert_array_equal(image, picture(number, shape))
    everything = [number for part in PARTS for number in numbers[part]]
    assert len(set(everything)) == len(everything) == sum(sizes)
    return numbers


def test_class_folders_are_split_by_seed_in_proportion(tmp_path):
    write(tmp_path / "animals")
    before = listing(tmp_path)
    dataset = data.from_folder(tmp_path / "animals")
    assert (dataset.name, dataset.source) == ("animals", f"class folders of {tmp_path / 'animals'}")
    numbers = check(dataset, (24, 3, 3))
    for part in PARTS:
        assert len(set(np.bincount(getattr(dataset, part).y))) == 1, part
    assert numbers["train"] != sorted(numbers["train"])  # shuffled
    assert check(data.from_folder(str(tmp_path / "animals")), (24, 3, 3)) == numbers
    assert check(data.from_folder(tmp_path / "animals", seed=1), (24, 3, 3)) != numbers
    other = data.from_folder(tmp_path / "animals", validation_split=0, test_split=0.5)
    check(other, (15, 0, 15))
    assert listing(tmp_path) == before


def test_train_and_test_are_folders(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", count=10, first=30)
    numbers = check(data.from_folder(tmp_path, validation_split=0.2), (24, 6, 30))
    assert sorted(numbers["test"]) == list(range(30, 60))
    write(tmp_path / "validation", count=10, first=60)
    numbers = check(data.from_folder(tmp_path, validation_split=0.2), (30, 30, 30))
    assert sorted(numbers["validation"]) == list(range(60, 90))


@pytest.mark.parametrize("top", ["", "train/"])
def test_a_zip_file_stands_in_place_of_a_folder(top, tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", first=30)
    expected = check(data.from_folder(tmp_path), (27, 3, 30))
    zipped = tmp_path / "zipped"
    zipped.mkdir()
    zip_of(tmp_path / "train", zipped / "train.zip", top)
    zip_of(tmp_path / "test", zipped / "test.zip")
    assert check(data.from_folder(zipped), (27, 3, 30)) == expected
    whole = data.from_folder(zipped / "train.zip")
    assert whole.name == "train"
    check(whole, (24, 3, 3))


def test_hidden_files_and_files_beside_the_folders_are_ignored(tmp_path):
    write(tmp_path)
    (tmp_path / "labels.csv").write_text("cat,0")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"not an image")
    zip_of(tmp_path, tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip", "a") as archive:
        archive.writestr("__MACOSX/cat/._000.png", b"not an image")
        archive.writestr("readme.txt", b"not an image")
        archive.writestr("cat/", b"")
    for path in (tmp_path, tmp_path / "all.zip"):
        check(data.from_folder(path), (24, 3, 3))


def test_files_beside_the_only_folder_of_a_zip_file_are_ignored(tmp_path):
    write(tmp_path / "images")
    zip_of(tmp_path / "images", tmp_path / "all.zip", "all/")
    with zipfile.ZipFile(tmp_path / "all.zip", "a") as archive:
        for name in (".DS_Store", "readme.txt"):
            archive.writestr(name, b"not an image")
    check(data.from_folder(tmp_path / "all.zip"), (24, 3, 3))


def test_photographs_stand_upright(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", count=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    lying = Image.fromarray(np.rot90(picture(7)).copy())
    lying.save(tmp_path / "test" / "cat" / "000.png", exif=exif)
    split = data.from_folder(tmp_path).test
    (cat,) = split.images[split.labels == 0]
    np.testing.assert_array_equal(cat, picture(7))


def test_images_are_resized_and_converted(tmp_path):
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 4:] = 200
    (tmp_path / "a").mkdir()
    for name, image in (("wide", wide), ("grey", wide[..., 0]), ("small", wide[:2, ::4])):
        (tmp_path / "a" / f"{name}.png").write_bytes(encoded(image))
    (tmp_path / "a" / "clear.png").write_bytes(encoded(np.dstack([wide, wide[..., :1]])))
    for channels in (1, 3):
        dataset = data.from_folder(tmp_path, (2, 2, channels), validation_split=0, test_split=0.25)
        images = np.concatenate([dataset.train.images, dataset.test.images])
        assert images.shape == (4, 2, 2, channels)
        assert (images[:, :, 0] < 60).all() and (images[:, :, 1] > 140).all()
        assert (images == images[..., :1]).all()


def test_grey_images_have_one_channel(tmp_path):
    write(tmp_path, shape=(6, 5, 1))
    check(data.from_folder(tmp_path), (24, 3, 3), shape=(6, 5, 1))


def test_jpeg_files_are_decoded(tmp_path):
    smooth = np.add.outer(np.arange(16), np.arange(16)).astype(np.uint8)[..., None].repeat(3, 2)
    (tmp_path / "a").mkdir()
    for name in range(4):
        (tmp_path / "a" / f"{name}.jpg").write_bytes(encoded(4 * smooth, "JPEG"))
    images = data.from_folder(tmp_path, test_split=0.25).train.images
    assert np.abs(images.astype(int) - 4 * smooth).max() < 12


def test_the_first_image_of_another_shape_is_named(tmp_path):
    write(tmp_path)
    for name, shape in (("dog/015.png", (5, 6, 3)), ("owl/020.png", (6, 5, 1))):
        (tmp_path / name).write_bytes(encoded(picture(0, shape)))
    with data_error(tmp_path / "dog" / "015.png", "is 5 x 6 x 3", "is 6 x 5 x 3", "image_shape"):
        data.from_folder(tmp_path)
    assert data.from_folder(tmp_path, (4, 4, 3)).train.images.shape == (24, 4, 4, 3)


def test_splits_of_other_shapes_or_classes_are_named(tmp_path):
    write(tmp_path / "train")
    write(tmp_path / "test", shape=(6, 6, 3))
    with data_error(f"Images of {tmp_path / 'test'} are 6 x 6 x 3", "6 x 5 x 3", "image_shape"):
        data.from_folder(tmp_path)
    (tmp_path / "test" / "owl").rename(tmp_path / "test" / "bat")
    with data_error(f"{tmp_path / 'test'} has a class bat but {tmp_path / 'train'} has none"):
        data.from_folder(tmp_path)
    (tmp_path / "test" / "bat").rename(tmp_path / "owl")
    with data_error(f"{tmp_path / 'train'} has a class owl but {tmp_path / 'test'} has none"):
        data.from_folder(tmp_path)


def no_folder(path):
    return path / "missing", ("missing", "cannot be read", "No such file")


def a_file(path):
    (path / "file").write_bytes(b"not a zip file")
    return path / "file", ("file", "cannot be read", "not a zip file")


def only_files(path):
    (path / "0.png").write_bytes(encoded(picture(0)))
    return path, ("has no class folders",)


def empty_class(path):
    write(path)
    (path / "cow").mkdir()
    return path, ("cow", "is empty")


def empty_class_in_zip(path):
    write(path)
    zip_of(path, path / "all.zip")
    with zipfile.ZipFile(path / "all.zip", "a") as archive:
        archive.writestr("cow/", b"")
    return path / "all.zip", ("all.zip/cow", "is empty")


def folder_in_class(path):
    write(path / "animals" / "small")
    return path, ("animals holds the folder small", "give the folder that holds the class folders")


def splits_in_zip(path):
    write(path / "train")
    zip_of(path, path / "all.zip")
    return path / "all.zip", ("all.zip/train holds the folder cat",)


def no_image(path):
    write(path)
    (path / "dog" / "notes.txt").write_text("good dog")
    return path, (path / "dog" / "notes.txt", "remove or replace it (unknown format)")


def a_program(path):
    write(path)
    file = path / "dog" / "013.png"
    Image.new("RGB", (5, 6)).save(file, "EPS")
    return path, (file, "PostScript, which is a program")


def cut_image(path):
    write(path)
    file = path / "dog" / "013.png"
    file.write_bytes(file.read_bytes()[:-30])
    return path, (file, "is not an image that can be read")


def damaged_in_zip(path):
    write(path)
    zip_of(path, path / "all.zip")
    raw = bytearray((path / "all.zip").read_bytes())
    raw[raw.index(b"IDAT") + 20] ^= 1
    (path / "all.zip").write_bytes(raw)
    return path / "all.zip", (path / "all.zip" / "cat" / "000.png", "Bad CRC-32")


def cut_zip(path):
    write(path)
    zip_of(path, path / "all.zip")
    raw = (path / "all.zip").read_bytes()
    (path / "all.zip").write_bytes(raw[: len(raw) // 2])
    return path / "all.zip", ("all.zip cannot be read", "not a zip file")


def deep_pixels(path):
    write(path)
    Image.fromarray(np.zeros((6, 5), np.uint16)).save(path / "dog" / "013.png")
    return path, (path / "dog" / "013.png", "not of 8 bits")


def one_split(path):
    write(path / "train")
    return path, ("has a folder train but no test: add it",)


def too_few(path):
    write(path, count=1, classes=("cat",))
    return path, ("Cannot split 1 images", "give more images")


@pytest.mark.parametrize(
    "make",
    [
        *(no_folder, a_file, only_files, empty_class, empty_class_in_zip, folder_in_class),
        *(splits_in_zip, no_image, a_program, cut_image, damaged_in_zip, cut_zip, deep_pixels),
        *(one_split, too_few),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(make, tmp_path, capfd):
    path, words = make(tmp_path)
    with data_error(*words):
        data.from_folder(path)
    assert capfd.readouterr() == ("", "")


def test_a_file_of_a_zip_file_that_is_huge_is_an_error(tmp_path, monkeypatch):
    write(tmp_path)
    zip_of(tmp_path, tmp_path / "all.zip")
    monkeypatch.setattr(folders, "_LARGEST", 10)
    with data_error(tmp_path / "all.zip" / "cat" / "000.png", "more than 10 bytes"):
        data.from_folder(tmp_path / "all.zip")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"image_shape": (4, 4, 2)}, "image_shape"),
        ({"image_shape": (0, 4, 3)}, "image_shape"),
        ({"image_shape": (4, 4)}, "image_shape"),
        ({"validation_split": 1.0}, "validation_split"),
        ({"test_split": 0}, "test_split"),
    ],
)
def test_arguments_out_of_range_are_errors(arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        data.from_folder(tmp_path, **arguments)


def test_a_progress_bar_appears_only_where_reading_takes_long(tmp_path, monkeypatch, capfd):
    write(tmp_path)
    data.from_folder(tmp_path)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(folders, "PROGRESS_AFTER", 0.0)
    data.from_folder(tmp_path)
    assert "images of" in capfd.readouterr().err


CIFAR10 = folders._CIFAR10_CLASSES


@pytest.fixture
def small_cifar10(tmp_path, monkeypatch):
    """CIFAR-10 with 100 + 20 images."""
    monkeypatch.setattr(folders, "_CIFAR10_SIZES", {"train": 100, "test": 20})
    for part, count in (("train", 10), ("test", 2)):
        write(tmp_path / part, count, classes=CIFAR10, shape=(32, 32, 3))
        (tmp_path / "cifar10_jpeg").mkdir(exist_ok=True)
        zip_of(tmp_path / part, tmp_path / "cifar10_jpeg" / f"{part}.zip", f"{part}/")
    return tmp_path


def test_cifar10_as_jpeg_is_read_from_its_zip_files(small_cifar10):
    dataset = data.load("cifar10_jpeg", small_cifar10)
    assert dataset.summary() == {
        "name": "cifar10_jpeg",
        "source": "lossy copies of the images of CIFAR-10",
        "train": 90,
        "validation": 10,
        "test": 20,
    }
    assert dataset.classes == CIFAR10
    assert np.bincount(dataset.validation.y).tolist() == [1] * 10
    assert len(data.load("cifar10_jpeg", small_cifar10 / "cifar10_jpeg").test) == 20
    half = data.load("cifar10_jpeg:5-9", small_cifar10)
    assert (half.classes, len(half.test)) == (CIFAR10[5:], 10)
    assert data.title(half.name) == "CIFAR-10 (JPEG), classes 5-9"


def test_missing_or_other_files_are_not_cifar10(small_cifar10, monkeypatch):
    (small_cifar10 / "cifar10_jpeg" / "test.zip").unlink()
    with data_error("cifar10_jpeg is not available: put test.zip", "cifar10_jpeg"):
        data.load("cifar10_jpeg", small_cifar10)
    zip_of(small_cifar10 / "train", small_cifar10 / "cifar10_jpeg" / "test.zip")
    with data_error("is not CIFAR-10", "100 training and 100 test images of 32 x 32 x 3 in 10"):
        data.load("cifar10_jpeg", small_cifar10)


@pytest.mark.slow
@pytest.mark.skipif("HYPERNET_TF_DATA" not in os.environ, reason="HYPERNET_TF_DATA is not set")
def test_cifar10_as_jpeg_is_read_from_the_real_files():
    root = Path(os.environ["HYPERNET_TF_DATA"])
    dataset = data.load("cifar10_jpeg", root)
    assert [len(getattr(dataset, part)) for part in PARTS] == [45_000, 5_000, 10_000]
    for part, count in zip(PARTS, (4_500, 500, 1_000), strict=True):
        assert np.bincount(getattr(dataset, part).y).tolist() == [count] * 10
    with zipfile.ZipFile(root / "cifar10_jpeg" / "test.zip") as archive:
        image = np.asarray(Image.open(archive.open("test/horse/0007.jpg")))
    (places,) = np.nonzero((dataset.test.images == image).all((1, 2, 3)))
    assert {CIFAR10[label] for label in dataset.test.y[places]} == {"horse"}


def test_classes_are_in_the_order_of_their_names(tmp_path):
    """That of their paths is another one: a slash comes after a hyphen."""
    write(tmp_path / "pets.2024", classes=("cat", "cat-big", "cat small"))
    dataset = data.from_folder(tmp_path / "pets.2024")
    assert dataset.classes == ("cat", "cat small", "cat-big")
    assert dataset.name == "pets.2024"
    for images, label in ((dataset.train.images, dataset.train.labels),):
        numbers = images[:, 0, 0, 0]  # written in the order cat, cat-big, cat small
        np.testing.assert_array_equal(label, np.array([0, 2, 1])[numbers // 10])
