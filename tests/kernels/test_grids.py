"""Grids of HIGGS against the published distortions, the rotation, and the plain reader."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import hadamard as sylvester

from bitwright.core.errors import InvalidInput
from bitwright.core.formats import GRID_FORMATS, parse_format
from bitwright.core.grid_format import GRIDS
from gpu_kernels import gaussian_grids
from gpu_kernels.gaussian_grids import distortion, grid, grid_distortion
from gpu_kernels.grid_codec import hadamard, nearest, rotate, signs
from quantizers.base import Blocks
from quantizers.containers.packed_grids import values as plain_values
from quantizers.rtn import QUANTIZER

#: Squared error a weight of a standard normal, bits -> value (research/01 section 2, Q-Palette's table, which names no
#: scalar grid below 2 bits). Lloyd and Max's own values for 2 to 5 bits are the same.
SCALAR = {2: 0.11748, 3: 0.03451, 4: 0.009503, 5: 0.002509, 6: 0.000649, 7: 0.000164, 8: 0.0000415}
PLANE = {
    1.5: 0.20124, 2: 0.10859, 2.5: 0.05708, 3: 0.02972, 3.5: 0.01523, 4: 0.007755, 4.5: 0.003920, 5: 0.001975,
    5.5: 0.000992, 6: 0.000499,
}  # fmt: skip
PUBLISHED = {
    **{f"higgs-p1-n{1 << bits}": value for bits, value in SCALAR.items()},
    **{f"higgs-p2-n{1 << round(2 * bits)}": value for bits, value in PLANE.items()},
}
#: Of three and four dimensions no table is published. Many points of a good quantizer lose, a weight,
#: G 2 pi ((d + 2) / d)^((d + 2) / 2) n^(-2 / d) (Zador 1982), G the second moment of the best known lattice, the
#: body-centred cubic one and D4 (Conway and Sloane, Sphere Packings, Lattices and Groups, table 2.3).
LATTICES = {3: 0.078543, 4: 0.076603}
SPACE = {f"higgs-p{p}-n{1 << bits}": (p, bits) for p in LATTICES for bits in GRIDS[p]}
NAMES = (
    "higgs-p1-n4", "higgs-p1-n256", "higgs-p2-n8", "higgs-p2-n512", "higgs-p1-n8-g16", "higgs-p2-n64-g64",
    "higgs-p3-n64", "higgs-p4-n256-g64",
)  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_distortions_are_within_two_percent_of_the_published_ones(name: str) -> None:
    assert distortion(grid(name)) == pytest.approx(PUBLISHED[name], rel=0.02)


@pytest.mark.parametrize("name", SPACE)
def test_distortions_in_three_and_four_dimensions_are_those_of_good_quantizers(name: str) -> None:
    """Near Zador's law, which few points stay below; above the bound 4^-bits; below two dimensions at the same bits."""
    dimension, bits = SPACE[name]
    rate, lost = bits / dimension, grid_distortion(name)
    law = LATTICES[dimension] * 2 * np.pi * (1 + 2 / dimension) ** ((dimension + 2) / 2) * 4.0**-rate
    assert 0.9 * law < lost < 1.03 * law
    assert distortion(grid(name), 1 << 18, seed=1) == pytest.approx(lost, rel=0.01)
    assert lost > 4.0**-rate
    assert lost < np.exp(np.interp(rate, list(PLANE), np.log(list(PLANE.values()))))


def test_every_grid_format_has_a_grid_of_its_size() -> None:
    assert set(GRID_FORMATS) == {*PUBLISHED, *SPACE}
    for name, format in GRID_FORMATS.items():
        assert grid(name).shape == (1 << format.code_bits, format.dimension)


@pytest.mark.parametrize("bits", [2, 4])
def test_the_program_that_made_the_scalar_grids_makes_them_again(bits: int) -> None:
    np.testing.assert_allclose(gaussian_grids.scalar(bits), grid(f"higgs-p1-n{1 << bits}"), atol=1e-6)


def test_the_program_that_made_the_plane_grids_makes_them_again() -> None:
    np.testing.assert_allclose(gaussian_grids.plane(3), grid("higgs-p2-n8"), atol=1e-5)


@pytest.mark.parametrize("name", ["higgs-p1-n8", "higgs-p2-n64"])
def test_codes_are_the_nearest_points(name: str) -> None:
    points = grid(name)
    x = np.random.default_rng(0).standard_normal((500, points.shape[1])).astype(np.float32) * 2
    distance = ((x[:, None].astype(np.float64) - points) ** 2).sum(axis=2)
    taken = distance[np.arange(500), nearest(name, x)]
    np.testing.assert_allclose(taken, distance.min(axis=1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("length", [1, 2, 64, 192, 352])
def test_the_hadamard_matrix_is_that_of_sylvester_block_by_block(length: int) -> None:
    found = hadamard(np.eye(length, dtype=np.float32))
    first, expected = 0, np.zeros((length, length))
    for bit in range(10, -1, -1):
        if length >> bit & 1:
            size = 1 << bit
            expected[first : first + size, first : first + size] = sylvester(size) / np.sqrt(size)
            first += size
    np.testing.assert_allclose(found, expected, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 700), st.sampled_from([16, 64, 1024]), st.integers(0, 2**32 - 1))
def test_the_rotation_preserves_outputs(inputs: int, group: int, seed: int) -> None:
    """y = W x before and after both are rotated, to 1e-5 of their length (HIGGS; research/01 section 2 d)."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((7, inputs)).astype(np.float32)
    x = rng.standard_normal((5, inputs)).astype(np.float32)
    before, after = x @ weight.T, rotate(x, group) @ rotate(weight, group).T
    scale = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    assert float(np.abs(after - before).max()) <= 1e-5 * max(1.0, float(scale.max()))
    assert set(np.unique(signs(group))) <= {-1.0, 1.0}


def test_rotated_rows_of_outliers_look_normal() -> None:
    """Excess kurtosis near 0 (research/01 section 2 d) where that of the weights is far from it."""
    rng = np.random.default_rng(3)
    weight = rng.standard_t(3, (64, 1024)).astype(np.float32)

    def kurtosis(x: np.ndarray) -> float:
        z = x / x.std(axis=1, keepdims=True)
        return float((z**4).mean() - 3)

    assert kurtosis(weight) > 3
    assert abs(kurtosis(rotate(weight, 1024))) < 0.3


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None)
@given(st.integers(1, 4), st.integers(1, 300), st.sampled_from([1.0, 1e-4, 1e4]), st.integers(0, 2**32 - 1))
def test_the_plain_reader_agrees_to_the_bit(name: str, rows: int, columns: int, spread: float, seed: int) -> None:
    weight = (np.random.default_rng(seed).standard_normal((rows, columns)) * spread).astype(np.float32)
    found = QUANTIZER.quantize(weight, parse_format(name))
    assert isinstance(found, Blocks)
    dense = found.dequantize()
    assert np.array_equal(plain_values(found.data, name, columns), dense)
    # A group of a few numbers is not normal, but nothing is worse than a scale at the end of its limits.
    assert float(((dense - weight) ** 2).sum()) <= 2 * float((weight.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize("name", ["higgs-p1-n8", "higgs-p1-n16", "higgs-p2-n16", "higgs-p2-n64", "higgs-p2-n256"])
def test_any_weights_lose_what_the_grid_loses_on_normal_ones(name: str) -> None:
    """Relative squared error of heavy-tailed weights: D / (1 - D) of the grid's own D, within 5 %; and no shrinkage."""
    weight = np.random.default_rng(4).standard_t(4, (64, 1024)).astype(np.float32)
    dense = QUANTIZER.quantize(weight, parse_format(name)).dequantize()
    power = (weight.astype(np.float64) ** 2).sum()
    assert ((dense - weight) ** 2).sum() / power == pytest.approx(PUBLISHED[name] / (1 - PUBLISHED[name]), rel=0.05)
    assert float((dense.astype(np.float64) * weight).sum()) == pytest.approx(power, rel=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_zeros_and_empty_matrices(name: str) -> None:
    for shape in ((2, 1), (3, 70), (2, 0), (0, 5)):
        found = QUANTIZER.quantize(np.zeros(shape, np.float32), parse_format(name)).dequantize()
        assert found.shape == shape
        assert float(np.abs(found).max(initial=0)) < 1e-5


def test_the_papers_scale_is_the_root_mean_square_and_shrinks() -> None:
    """The option grid_scale = "norm": codes stay, the error is the grid's own, the weights lose D of their length."""
    weight, name = np.random.default_rng(5).standard_normal((16, 1024)).astype(np.float32), "higgs-p2-n16"
    plain = QUANTIZER.quantize(weight, parse_format(name), grid_scale="norm")
    assert isinstance(plain, Blocks)
    scale = np.ascontiguousarray(plain.data[:, :2]).view("<f2")[:, 0].astype(np.float64)
    np.testing.assert_allclose(scale, np.sqrt((weight.astype(np.float64) ** 2).mean(axis=1)), rtol=1e-3)
    power, dense = (weight.astype(np.float64) ** 2).sum(), plain.dequantize().astype(np.float64)
    assert ((dense - weight) ** 2).sum() / power == pytest.approx(PUBLISHED[name], rel=0.03)
    assert (dense * weight).sum() / power == pytest.approx(1 - PUBLISHED[name], rel=0.01)
    with pytest.raises(InvalidInput, match="grid_scale"):
        QUANTIZER.quantize(weight, parse_format(name), grid_scale="best")
