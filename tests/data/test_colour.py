"""Colour data sets from files in the formats of the original ones."""

import io
import shutil
import tarfile

import numpy as np
import pytest
from data_cases import PARTS, data_error, register

from hypernet_tf import data
from hypernet_tf.data import errors

ARCHIVES = {"cifar10": "cifar-10-binary.tar.gz", "cifar100": "cifar-100-binary.tar.gz"}
FILES = ARCHIVES | {"svhn_cropped": "train_32x32.mat"}
SIZES = {"train": 5_040, "test": 30}


pytestmark = pytest.mark.usefixtures("offline")


def picture(number):
    """An image uint8 [32, 32, 3]: red and green encode the number, blue row and column."""
    rows, columns = np.mgrid[:32, :32]
    high, low = divmod(number, 256)
    return np.stack([0 * rows + high, 0 * rows + low, 8 * rows + columns // 4], -1).astype("uint8")


def number_of(image):
    return int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])


def archive(path, name, label=lambda number: number):
    """A small tar file in CIFAR's binary format, its test images numbered from 6,000."""

    def records(first, count):
        for number in range(first, first + count):
            fine = [label(number) % 256]
            labels = fine if name == "cifar10" else [number % 20, *fine]
            yield bytes(labels) + picture(number).transpose(2, 0, 1).tobytes()

    if name == "cifar10":
        prefix, names = "cifar-10-batches-bin", {"batches.meta.txt": 10}
        fifth = SIZES["train"] // 5
        files = {f"data_batch_{k + 1}.bin": (k * fifth, fifth) for k in range(5)}
        files["test_batch.bin"] = (6_000, SIZES["test"])
    else:
        prefix, names = (
            "cifar-100-binary",
            {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
        )
        files = {"train.bin": (0, SIZES["train"]), "test.bin": (6_000, SIZES["test"])}
    content = {file: b"".join(records(*span)) for file, span in files.items()}
    for file, count in names.items():
        kind = "coarse" if "coarse" in file else "class"
        content[file] = "".join(f"{kind} {k}\n" for k in range(count)).encode()
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for file, body in content.items():
            member = tarfile.TarInfo(f"{prefix}/{file}")
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))


def mat_files(folder):
    """SVHN's two files: the digit 0 has the label 10."""
    from scipy.io import savemat

    for part, first in (("train", 0), ("test", 6_000)):
        numbers = range(first, first + SIZES[part])
        images = np.stack([picture(number) for number in numbers], -1)
        labels = np.array([[number % 10 or 10] for number in numbers], np.uint8)
        savemat(folder / f"{part}_32x32.mat", {"X": images, "y": labels}, do_compression=True)


def check(dataset, name, numbers):
    """Each image is whole and has its own label."""
    classes = 100 if name == "cifar100" else 10
    label = "class {}" if name in ARCHIVES else "{}"
    assert dataset.name == name
    assert dataset.classes == tuple(label.format(k) for k in range(classes))
    for part, expected in numbers.items():
        split = getattr(dataset, part)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        found = [number_of(image) for image in split.images]
        assert sorted(found) == sorted(expected), part
        assert split.labels.tolist() == [number % classes for number in found]
        for place in (0, -1):
            np.testing.assert_array_equal(split.images[place], picture(found[place]))


@pytest.mark.parametrize("name", ["cifar10", pytest.param("cifar100", marks=pytest.mark.slow)])
def test_cifar_is_prepared_from_its_archive_once(name, tmp_path, monkeypatch, capsys, caplog):
    """TFDS's own builder reads the archive; the second time it reads what it has prepared."""
    folder = tmp_path if name == "cifar10" else tmp_path / name
    folder.mkdir(exist_ok=True)
    archive(folder / FILES[name], name, lambda n: n % (10 if name == "cifar10" else 100))
    register(monkeypatch, name, folder)
    first = data.load(name, tmp_path)
    assert first.source == f"TensorFlow Datasets {name} 3.0.2"
    (folder / FILES[name]).unlink()
    again = data.load(name, tmp_path)
    sizes = {part: len(getattr(first, part)) for part in PARTS}
    assert sizes == {"train": 40, "validation": 5_000, "test": 30}
    everything = [number_of(x) for s in (first.train, first.validation) for x in s.images]
    assert sorted(everything) == list(range(5_040))
    check(
        first,
        name,
        {"train": everything[:40], "validation": everything[40:], "test": range(6_000, 6_030)},
    )
    for part in PARTS:
        np.testing.assert_array_equal(getattr(first, part).images, getattr(again, part).images)
        np.testing.assert_array_equal(getattr(first, part).labels, getattr(again, part).labels)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert capsys.readouterr() == ("", "") and not caplog.records


@pytest.mark.parametrize("sub_folder", [".", "svhn_cropped"])
def test_svhn_is_read_from_two_of_its_files(sub_folder, originals, tmp_path, monkeypatch):
    folder = tmp_path / sub_folder
    folder.mkdir(exist_ok=True)
    for part in ("train", "test"):
        shutil.copy(originals / f"{part}_32x32.mat", folder)
    register(monkeypatch, "svhn_cropped", folder)
    before = sorted(tmp_path.rglob("*"))
    dataset = data.load("svhn_cropped", tmp_path)
    assert dataset.source == "train_32x32.mat and test_32x32.mat, in their own order"
    numbers = (range(40), range(40, 5_040), range(6_000, 6_030))
    check(dataset, "svhn_cropped", dict(zip(PARTS, numbers, strict=True)))
    assert [number_of(image) for image in dataset.validation.images] == list(numbers[1])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_svhn_that_tfds_has_prepared_comes_before_its_files(originals, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    manual_dir = tmp_path / "manual"
    shutil.copytree(originals, manual_dir)
    shutil.copy(manual_dir / "test_32x32.mat", manual_dir / "extra_32x32.mat")
    register(monkeypatch, "svhn_cropped", manual_dir)
    with errors.guard("TFDS cannot prepare the test's files"):  # which is also silent
        tfds.builder("svhn_cropped", data_dir=tmp_path).download_and_prepare(
            download_dir=tmp_path / "downloads",
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        )
    (tmp_path / "train_32x32.mat").write_bytes(b"no longer read")
    dataset = data.load("svhn_cropped", tmp_path)
    assert dataset.source == "TensorFlow Datasets svhn_cropped 3.1.0"
    everything = [number_of(x) for s in (dataset.train, dataset.validation) for x in s.images]
    assert len(dataset.train) == 40 and sorted(everything) == list(range(5_040))
    numbers = (everything[:40], everything[40:], range(6_000, 6_030))
    check(dataset, "svhn_cropped", dict(zip(PARTS, numbers, strict=True)))


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    for name, file in ARCHIVES.items():
        archive(folder / file, name)
    mat_files(folder)
    return folder


def flipped(raw):
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda raw: raw[:-20], "wrong length"),
        (lambda raw: b"", "wrong length: 0 bytes"),
        (lambda raw: raw + b"\0", "wrong length"),
        (flipped, "wrong checksum"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(
    name, harm, why, originals, tmp_path, monkeypatch, capfd
):
    register(monkeypatch, name, originals)
    path = tmp_path / FILES[name]
    path.write_bytes(harm((originals / FILES[name]).read_bytes()))
    with data_error(f"{path} is not the original file of {name}: replace it", why):
        data.load(name, tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", FILES)
def test_another_file_under_the_name_is_not_the_original(name, originals, tmp_path):
    """Against the checksums that TFDS has: a file of the right format is not enough."""
    (tmp_path / FILES[name]).symlink_to(originals / FILES[name])
    with data_error(tmp_path / FILES[name], "is not the original file", "wrong length"):
        data.load(name, tmp_path)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_label_out_of_range_is_an_error(name, originals, tmp_path, monkeypatch, capfd):
    """The images of the module's archives are numbered on beyond the last class."""
    (tmp_path / FILES[name]).symlink_to(originals / FILES[name])
    register(monkeypatch, name, originals)
    with data_error("cannot prepare", tmp_path / name):
        data.load(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILES[name]]
    assert "Traceback" not in capfd.readouterr().err


def test_a_missing_file_of_svhn_is_named(originals, tmp_path, monkeypatch):
    register(monkeypatch, "svhn_cropped", originals)
    (tmp_path / "train_32x32.mat").symlink_to(originals / "train_32x32.mat")
    with data_error(tmp_path / "test_32x32.mat", "No such file"):
        data.load("svhn_cropped", tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_without_network_one_line_says_which_file_to_give(name, tmp_path, capfd):
    assert data.resolve(name, tmp_path) == (name, None)
    with data_error(f"{name} is neither prepared under {tmp_path}", "data_dir", FILES[name]):
        data.load(name, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
