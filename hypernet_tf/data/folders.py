"""Images in class folders: `from_folder`, and CIFAR-10 as JPEG.

Pillow reads the images: the readers of Keras and TFDS read no zip files, resize all images or none,
and do not name the file that cannot be read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hypernet_tf.data.errors import DataError, guard
from hypernet_tf.data.selection import stratified
from hypernet_tf.data.splits import Dataset, Split

PROGRESS_AFTER = 3.0  # seconds of reading
_LARGEST = 2**28  # bytes of a file in a zip file

_CIFAR10_SIZES = {"train": 50_000, "test": 10_000}
_CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_Read = Callable[[], bytes]  # the content of a file


def from_folder(
    path: str | os.PathLike[str],
    image_shape: tuple[int, int, int] | None = None,
    *,
    validation_split: float = 0.1,
    test_split: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Read images of your own: a folder for each class, named after it.

    The folder holds class folders; or it holds `train` and `test`, and perhaps `validation`, each
    with the same class folders. A zip file may stand in place of each of these folders: `train.zip`
    in place of `train`. It holds class folders, or one folder of its own name with them. Every file
    in a class folder is an image of one of Pillow's formats, except PostScript. Hidden files, and
    files beside the class folders, are ignored.

    Classes are numbered in the order of their names. All images are in memory, and each split is
    in random order. Splits that have no folder are chosen at random, each class in proportion. A
    progress bar appears where reading takes longer than a few seconds.

    Args:
        path: The folder, or a zip file of class folders.
        image_shape: Shape to which images are resized (bilinear, without keeping the aspect ratio)
            and converted, (height, width, 1 or 3 channels). By default they keep their shape, which
            all must have.
        validation_split: Fraction of the images that are not test images, in [0, 1): it becomes the
            validation split if there is no folder `validation`.
        test_split: Fraction of the images, in (0, 1): it becomes the test split if there is no
            folder `test`.
        seed: Seed of the choice and of the order.

    Returns:
        The data set, named after the folder.

    Raises:
        DataError: A folder or file cannot be read, has no images or does not fit the others.
        ValueError: An argument is out of its range.

    Example:
        >>> dataset = from_folder("flowers", (32, 32, 3))  # doctest: +SKIP
        >>> dataset.classes, dataset.train.images.shape  # doctest: +SKIP
        (('daisy', 'rose'), (810, 32, 32, 3))
    """
    if image_shape is not None and (
        len(image_shape) != 3 or min(image_shape) < 1 or image_shape[2] not in (1, 3)
    ):
        raise ValueError(
            f"Unknown image_shape={tuple(image_shape)}: give (height, width, channels) with 1 or 3 "
            "channels."
        )
    if not (0 <= validation_split < 1 and 0 < test_split < 1):
        raise ValueError(
            f"Cannot split by validation_split={validation_split} and test_split={test_split}: "
            "give fractions below 1, and test_split above 0."
        )
    path = Path(path).expanduser()
    with guard(f"{path} cannot be read: give a folder of class folders, or a zip file of them"):
        parts = {
            part: source
            for part in ("train", "validation", "test")
            if (source := _folder_or_zip(path / part))
        }
    for part in ("train", "test") if parts else ():
        if part not in parts:
            raise DataError(f"{path} has a folder {next(iter(parts))} but no {part}: add it")
    read, classes = _read_parts(parts or {"train": path}, image_shape)
    chosen = {part: (split, np.arange(len(split))) for part, split in read.items()}
    for part, fraction in (("test", test_split), ("validation", validation_split)):
        if part not in chosen:
            split, left = chosen["train"]
            taken = left[stratified(split.labels[left], round(fraction * len(left)), seed)]
            chosen |= {"train": (split, np.setdiff1d(left, taken)), part: (split, taken)}
    rng = np.random.default_rng(seed)
    splits = {}
    for part, (split, indices) in chosen.items():
        if not len(indices) and part != "validation":
            raise DataError(f"Cannot split {len(split)} images of {path}: give more images")
        order = rng.permutation(indices)
        splits[part] = split[order]
    name = path.resolve().name if path.is_dir() else path.stem
    return Dataset(name, f"class folders of {path}", classes, **splits)


def read_cifar10_jpeg(root: Path) -> Dataset:
    """CIFAR-10 as JPEG, from class folders or zip files.

    Args:
        root: Folder of data sets, in whose folder `cifar10_jpeg` are `train` and `test`, or
            train.zip and test.zip; or that folder itself, if it has this name.

    Returns:
        A data set named "cifar10_jpeg" with 45,000/5,000/10,000 images.

    Raises:
        DataError: The files are missing or hold something else.
    """
    folder = root / "cifar10_jpeg"
    if not folder.exists() and root.name == "cifar10_jpeg":
        folder = root
    missing = [part for part in _CIFAR10_SIZES if not _folder_or_zip(folder / part)]
    if missing:
        raise DataError(
            f"cifar10_jpeg is not available: put {missing[0]}.zip, with a folder of JPEG files for "
            f"each class, into {folder}"
        )
    dataset = from_folder(folder)
    sizes = {"train": len(dataset.train) + len(dataset.validation), "test": len(dataset.test)}
    shape = dataset.test.images.shape[1:]
    if (sizes, shape, dataset.classes) != (_CIFAR10_SIZES, (32, 32, 3), _CIFAR10_CLASSES):
        raise DataError(
            f"{folder} is not CIFAR-10: it has {sizes['train']:,} training and {sizes['test']:,} "
            f"test images of {_by(shape)} in {len(dataset.classes)} classes. Replace its files."
        )
    source = "lossy copies of the images of CIFAR-10"
    return dataclasses.replace(dataset, name="cifar10_jpeg", source=source)


# ---- files --------------------------------------------------------------------------------------


def _folder_or_zip(path: Path) -> Path | None:
    """A folder, or the zip file in its place; None if there is neither."""
    zipped = path.with_name(f"{path.name}.zip")
    return path if path.is_dir() else zipped if zipped.is_file() else None


def _read_parts(
    parts: dict[str, Path], image_shape: tuple[int, int, int] | None
) -> tuple[dict[str, Split], tuple[str, ...]]:
    """The images of each part, of one shape and of the same classes, and the classes."""
    splits: dict[str, Split] = {}
    classes: tuple[str, ...] = ()
    for part, path in parts.items():
        split, names = _read(path, image_shape)
        for name in sorted({*names} ^ {*classes} if splits else ()):
            has, lacks = (path, parts["train"]) if name in names else (parts["train"], path)
            raise DataError(f"{has} has a class {name} but {lacks} has none: add or remove it")
        shapes = [x.images.shape[1:] for x in (split, *splits.values())]
        if shapes[0] != shapes[-1]:
            raise DataError(
                f"Images of {path} are {_by(shapes[0])}, but those of {parts['train']} are "
                f"{_by(shapes[-1])}: give an image_shape, to which images are resized"
            )
        splits[part], classes = split, names
    return splits, classes


def _read(path: Path, image_shape: tuple[int, int, int] | None) -> tuple[Split, tuple[str, ...]]:
    """All images of the class folders in a folder or zip file, and the names of the classes."""
    with contextlib.ExitStack() as stack:
        with guard(f"{path} cannot be read: give a folder of class folders, or a zip file of them"):
            if path.is_file():
                archive = stack.enter_context(zipfile.ZipFile(path))
                files = _files_of_zip(archive, path.stem)
            else:
                files = _files_of_folder(path)
        by_class = _by_class(path, files)
        names = [name for members in by_class.values() for name in members]
        images = np.empty(0)
        bar = tqdm(names, f"images of {path.name}", leave=False, delay=PROGRESS_AFTER)
        for index, name in enumerate(bar):
            with guard(f"{path / name} is not an image that can be read: remove or replace it"):
                image = _decode(files[name](), image_shape)
            if index == 0:
                images = np.empty((len(names), *image.shape), np.uint8)
            if image.shape != images.shape[1:]:
                raise DataError(
                    f"{path / name} is {_by(image.shape)}, but {names[0]} is "
                    f"{_by(images.shape[1:])}: give an image_shape, to which images are resized"
                )
            images[index] = image
    labels = np.repeat(np.arange(len(by_class)), [len(members) for members in by_class.values()])
    return Split(images, labels), tuple(by_class)


def _files_of_folder(path: Path) -> dict[str, _Read]:
    """Paths from a folder down to the files of its folders, and what reads them."""
    files: dict[str, _Read] = {}
    for folder in (entry for entry in path.iterdir() if entry.is_dir()):
        files[f"{folder.name}/"] = folder.read_bytes
        for file in folder.iterdir():
            slash = "/" if file.is_dir() else ""
            files[f"{folder.name}/{file.name}{slash}"] = file.read_bytes
    return files


def _files_of_zip(archive: zipfile.ZipFile, top: str) -> dict[str, _Read]:
    """The same of a zip file, from its only folder down if that has the name of the zip file."""
    # Hidden files, and files beside the folders, are none of the data set.
    listed = archive.namelist()
    names = [name for name in listed if "/" in name and not name.startswith(("__MACOSX/", "."))]
    skipped = len(top) + 1 if all(name.startswith(f"{top}/") for name in names) else 0
    return {
        name[skipped:]: functools.partial(_read_member, archive, name)
        for name in names
        if len(name) > skipped
    }


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A file of a zip file, which few bytes may claim to be huge."""
    if archive.getinfo(name).file_size > _LARGEST:
        raise ValueError(f"more than {_LARGEST:,} bytes")
    return archive.read(name)


def _by_class(path: Path, files: Iterable[str]) -> dict[str, list[str]]:
    """The names of the classes in order, and the files of each."""
    by_class: dict[str, list[str]] = {}
    for name in sorted(files):
        folder, slash, file = name.partition("/")
        if not slash or folder.startswith(".") or file.startswith("."):
            continue
        members = by_class.setdefault(folder, [])
        if "/" in file:
            raise DataError(
                f"The class folder {path / folder} holds the folder {file.partition('/')[0]}: "
                "give the folder that holds the class folders"
            )
        if file:
            members.append(name)
    if not by_class:
        raise DataError(f"{path} has no class folders: put the images of each class into a folder")
    for folder, members in by_class.items():
        if not members:
            raise DataError(f"The class folder {path / folder} is empty: add images or remove it")
    # Paths are in another order: their slash comes after a space or a hyphen.
    return dict(sorted(by_class.items()))


def _decode(raw: bytes, image_shape: tuple[int, int, int] | None) -> np.ndarray:
    """One image, uint8 [H, W, C]."""
    from PIL import Image, ImageOps, UnidentifiedImageError  # takes time to load

    try:
        image: Image.Image = Image.open(io.BytesIO(raw))
    except UnidentifiedImageError:
        raise ValueError("unknown format") from None
    if image.format == "EPS":  # Pillow has Ghostscript execute it
        raise ValueError("PostScript, which is a program")
    ImageOps.exif_transpose(image, in_place=True)  # upright, as viewers show a photograph
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"pixels of mode {image.mode}, not of 8 bits")
    grey = image_shape[2] == 1 if image_shape else image.mode in ("1", "L", "LA")
    image = image.convert("L" if grey else "RGB")
    if image_shape and image.size != image_shape[1::-1]:
        image = image.resize(image_shape[1::-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(image)
    return pixels[..., None] if grey else pixels


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
