"""`glyphs`, letters in the fonts of matplotlib."""

import time

import numpy as np
import pytest
from data_cases import listing, rows

from hypernet_tf import data
from hypernet_tf.data import glyphs


@pytest.fixture(scope="module")
def letters(load_once):
    return load_once("glyphs", None)


def test_glyphs_are_test_images_only(letters):
    assert letters.summary() == {
        "name": "glyphs",
        "source": letters.source,
        "train": 0,
        "validation": 0,
        "test": 2_200,
    }
    assert letters.source.startswith("letters drawn in 22 fonts of matplotlib ")
    assert letters.classes == tuple("ABCDEFGHIJ")
    assert not data.DATASETS["glyphs"].trains
    assert letters.train.x.shape == letters.validation.x.shape == (0, 28, 28, 1)
    split = letters.test
    assert split.images.shape == (2_200, 28, 28, 1)
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert np.bincount(split.labels).tolist() == [220] * 10
    assert len(set(rows(split.images, split.labels))) == 2_200
    assert len(set(split.labels[:30].tolist())) > 5  # shuffled


def test_glyphs_are_drawn_in_fonts_that_have_the_letters():
    names = [path.stem for path in glyphs.find_fonts()]
    assert len(names) == len(set(names)) == 22
    assert {"DejaVuSans", "STIXGeneral", "cmr10", "cmtt10"} <= set(names)
    assert not {"cmex10", "cmsy10", "LastResortHE-Regular", "STIXNonUni"} & set(names)


def test_glyphs_are_white_on_black_and_not_cut_off(letters):
    images = letters.test.images[..., 0]
    border = np.ones([28, 28], bool)
    border[1:-1, 1:-1] = False
    assert images[:, border].max() == 0
    assert images.max((1, 2)).min() > 150
    # 16 to 22 pixels on the longer side, plus pixels that the edges touch.
    lit = images > 0
    longer = np.maximum(lit.any(1).sum(1), lit.any(2).sum(1))
    assert longer.min() >= 16 and longer.max() <= 24
    # Recorded with matplotlib 3.11.2, of 255; another one's rounding may differ a little.
    assert images.mean() == pytest.approx(34.99, abs=0.1)


def test_glyphs_are_the_letters_they_are_called(letters):
    """Without variation a glyph is almost what Pillow draws in the same font."""
    from matplotlib.textpath import TextPath
    from PIL import Image, ImageDraw, ImageFont

    def pillow(letter, path):
        page = Image.new("L", (400, 400))
        ImageDraw.Draw(page).text((100, 100), letter, 255, ImageFont.truetype(path, 160))
        page = page.crop(page.getbbox())
        longer = 8 * 19  # at eight times the size, so that rounding is an eighth of a pixel
        page = page.resize([round(longer * side / max(page.size)) for side in page.size])
        image = Image.new("L", (8 * 28, 8 * 28))
        image.paste(page, tuple((8 * 28 - side) // 2 for side in page.size))
        return np.asarray(image.reduce(8), float).ravel()

    class Middle:
        """A generator whose numbers are in the middle of their range."""

        def uniform(self, low, high, size=None):
            return np.full(size or (), (low + high) / 2)

    canvas = glyphs.RendererAgg(28, 28, 72)
    for path in glyphs.find_fonts():
        font = glyphs.font_manager.FontProperties(fname=path)
        outlines = [TextPath((0, 0), letter, prop=font) for letter in glyphs.LETTERS]
        drawn = [glyphs._draw(canvas, glyphs._vary(outline, Middle())) for outline in outlines]
        glyph_pixels = np.stack([image.ravel() for image in drawn]).astype(float)
        pillow_pixels = np.stack([pillow(letter, path) for letter in glyphs.LETTERS])
        alike = np.corrcoef(glyph_pixels, pillow_pixels)[:10, 10:]
        np.testing.assert_array_equal(alike.argmax(1), np.arange(10), err_msg=path.stem)
        assert np.diag(alike).min() > 0.98, path.stem


def test_glyphs_are_always_the_same_and_drawn_fast(letters, tmp_path, offline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    again = data.load("glyphs")
    assert time.monotonic() - start < 10
    np.testing.assert_array_equal(again.test.images, letters.test.images)
    np.testing.assert_array_equal(again.test.labels, letters.test.labels)
    assert listing(tmp_path) == listing(offline) == {}
