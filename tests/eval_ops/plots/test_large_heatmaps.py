"""Pictures of many experts: their cells are coloured as those of few are."""

import numpy as np
import pytest

from eval_ops.plots.heatmap import MOST_NUMBERED, heatmap_figure


@pytest.mark.parametrize("count", [MOST_NUMBERED + 1, 30])
def test_cells_have_the_colours_of_their_numbers(count: int) -> None:
    cosine = [[(row - column) / count for column in range(count)] for row in range(count)]
    figure = heatmap_figure([f"e{number}" for number in range(count)], cosine, cosine)
    figure.canvas.draw()
    dots = np.asarray(figure.canvas.buffer_rgba())
    axes = figure.axes[0]
    (image,) = axes.images
    # What matplotlib keeps of it are these numbers, not one for each dot of the picture.
    assert image.get_array().shape == (count, count)
    for row, column in ((0, 0), (0, count - 1), (count - 1, 0), (7, 19)):
        across, up = axes.transData.transform((column, row))
        expected = image.to_rgba(np.array([cosine[row][column]]), bytes=True)[0]
        assert dots[len(dots) - 1 - int(up), int(across)].tolist() == expected.tolist()
