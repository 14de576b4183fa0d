"""`glyphs`: letters A to J in the fonts that matplotlib ships, as grey images like MNIST's.

A replacement of notMNIST that needs no download: images of MNIST's format that show no digits
(except that the I without serifs looks like a 1).
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.path import Path as Outline
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D

from hypernet_tf.data.splits import Dataset, Split

LETTERS = "ABCDEFGHIJ"
SIDE = 28  # pixels
VARIATIONS = 10  # of each letter in each font
LONGER_SIDE = (16.0, 22.0)  # of a letter's bounding box, pixels: MNIST's digits have 20
SHIFT = 2.0  # pixels at most, each way: with 22 a letter stays 1 pixel off the edge
ROTATION = 10.0  # degrees at most, each way

_SYMBOL_FONTS = ("cmsy10",)  # it has script capitals; other symbol fonts have no letters


def load_glyphs() -> Dataset:
    """Letters in every font, rotated, scaled and shifted at random, always the same.

    Returns:
        A data set named "glyphs": its test split has `VARIATIONS` images of each letter in each
        font, white on black [M, 28, 28, 1], in random order.
    """
    fonts = find_fonts()
    rng = np.random.default_rng(0)
    canvas = RendererAgg(SIDE, SIDE, 72)
    images, labels = [], []
    for font in fonts:
        for label, letter in enumerate(LETTERS):
            curved = TextPath((0, 0), letter, prop=font_manager.FontProperties(fname=font))
            outline = curved.cleaned(curves=False)  # the box around curves takes much longer
            for _ in range(VARIATIONS):
                images.append(_draw(canvas, _vary(outline, rng)))
                labels.append(label)
    order = rng.permutation(len(images))
    split = Split(np.stack(images)[order, ..., None], np.array(labels, np.int64)[order])
    source = f"letters drawn in {len(fonts)} fonts of matplotlib {matplotlib.__version__}"
    return Dataset.to_test("glyphs", source, tuple(LETTERS), split)


def find_fonts() -> list[Path]:
    """The fonts of matplotlib that draw A to J, by file name.

    They are recognised by the name that a font gives to each glyph: cmex10 has brackets in place of
    letters, and LastResortHE one box for all of them.
    """
    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    return [font for font in sorted(folder.glob("*.ttf")) if _draws_letters(font)]


def _draws_letters(path: Path) -> bool:
    font = font_manager.get_font(path)
    glyphs = font.get_charmap()
    return path.stem not in _SYMBOL_FONTS and all(
        ord(letter) in glyphs and font.get_glyph_name(glyphs[ord(letter)]) == letter
        for letter in LETTERS
    )


def _vary(outline: Outline, rng: np.random.Generator) -> Outline:
    """The outline rotated, scaled and shifted, in pixels."""
    angle, longer = rng.uniform(-ROTATION, ROTATION), rng.uniform(*LONGER_SIDE)
    across, up = SIDE / 2 + rng.uniform(-SHIFT, SHIFT, 2)
    turned = outline.transformed(Affine2D().rotate_deg(angle))
    box = turned.get_extents()
    middle = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2)
    scale = longer / max(box.width, box.height)
    return turned.transformed(middle.scale(scale).translate(across, up))


def _draw(canvas: RendererAgg, outline: Outline) -> np.ndarray:
    """The share of each pixel inside the outline, uint8 [28, 28]."""
    canvas.clear()
    context = canvas.new_gc()
    context.set_linewidth(0.0)
    context.set_snap(False)  # otherwise straight letters jump to whole pixels
    canvas.draw_path(context, outline, Affine2D(), (1.0, 1.0, 1.0))
    return np.asarray(canvas.buffer_rgba())[..., 3].copy()
