"""Bands of rows: even among workers, small enough for a cache, none where they would be of no use."""

import pytest

from convjit.gemm import bands
from convjit.gemm.planes import backward_axes, forward_axes, plane_elements
from convjit.geometry import conv2d_geometry

SIZES = [7, 14, 27, 28, 56, 224]


def axes_of(size, kernel, stride=1, dilation=1):
    padding = dilation * (kernel // 2)
    return forward_axes(
        conv2d_geometry("test", (1, 16, size, size), (64, 16, kernel, kernel), stride, padding, dilation, 1)
    )


def rows_of(axes, workers, batch=1, channels=16, least=1):
    terms = channels * axes[0].taps * axes[1].taps
    return bands.band_size(axes, channels, batch, 64, terms, workers, 4, least).rows


def share_of(axes, each, workers, batch):
    """Rows of the worker with the most bands, over its fair share."""
    tasks = batch * -(-axes[0].grid // each)
    return -(-tasks // workers) * each / (batch * axes[0].grid / workers)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation"), [(3, 1, 1), (3, 2, 1), (7, 2, 1), (3, 1, 2), (5, 1, 1), (2, 1, 1)]
)
@pytest.mark.parametrize("size", SIZES)
def test_no_worker_has_much_more_than_its_share(size, kernel, stride, dilation, batch, workers):
    axes = axes_of(size, kernel, stride, dilation)
    each = rows_of(axes, workers, batch)
    assert each == 0 or share_of(axes, each, workers, batch) <= bands._MOST_OF_SHARE


@pytest.mark.parametrize("size", [28, 56, 224])
def test_two_workers_share_an_image_by_bands(size):
    axes = axes_of(size, 3)
    each = rows_of(axes, 2)
    assert 0 < each < size
    assert share_of(axes, each, 2, 1) == pytest.approx(1, abs=0.08)


@pytest.mark.parametrize("channels", [16, 64, 300])
@pytest.mark.parametrize("size", SIZES)
def test_planes_of_a_band_stay_in_the_cache(size, channels):
    axes = axes_of(size, 3)
    each = rows_of(axes, 1, channels=channels)
    if channels * size > 300 * 56:  # bands would consist of what they share
        assert each == 0
        return
    assert each > 0
    of_band = axes[0]._replace(grid=each, padded=each + axes[0].padded - axes[0].grid), axes[1]
    assert 4 * plane_elements(channels, *of_band) <= bands._CACHED_BYTES + 4096


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 6, 32])
def test_parts_are_of_whole_groups_whose_planes_stay_in_the_cache(groups, workers):
    axes, channels = axes_of(56, 3, stride=2), 240 // groups * groups
    band = bands.band_size(axes, channels, 1, channels, 9 * channels // groups, workers, 4, groups=groups)
    if groups == 1:
        assert band == bands.FILLED_BEFORE
        return
    assert band.parts > 1
    assert groups % band.parts == 0
    of_band = axes[0]._replace(grid=band.rows, padded=band.rows + axes[0].padded - axes[0].grid), axes[1]
    assert 4 * plane_elements(channels // band.parts, *of_band) <= bands._CACHED_BYTES + 4096


def test_nothing_is_cut_where_images_are_read_in_place():
    assert rows_of(axes_of(56, 1), 2) == 0


def test_nothing_is_cut_without_images():
    assert rows_of(axes_of(56, 3), 2, batch=0) == 0


def test_bands_that_consist_of_what_they_share_are_left_alone():
    assert rows_of(axes_of(14, 7, dilation=2), 16) == 0


def test_bands_have_no_less_than_so_many_grid_points():
    axes = axes_of(14, 3)
    assert 0 < rows_of(axes, 2) < 14
    assert rows_of(axes, 2, least=144) == 0
    assert rows_of(axes, 1, least=1000) == 14  # a whole image is not cut


def test_nothing_is_cut_of_a_gradient_without_rows():
    g = conv2d_geometry("test", (1, 9, 0, 5), (9, 9, 3, 3), 1, ((3, 3), (2, 1)), 1, 1)
    axes = backward_axes(g)
    assert axes[0].grid == 0
    assert bands.band_size(axes, 9, 1, 9, 81, 1, 8) == bands.FILLED_BEFORE
