"""Grids of points that lose least squared error on normal numbers, and the program that made them.

    python -m gpu_kernels.gaussian_grids      makes gaussian_grids.npz anew (minutes) and prints the distortions

One dimension: Lloyd and Max's conditions, with the normal distribution's own integrals. Two: Lloyd's iteration over a
fine lattice of nodes weighed by the normal density (no random numbers), from a sunflower of points at the density that
is best for many points, proportional to the square root of the normal's (Zador; p^(d / (d + 2)) for d dimensions).
Three and four: Lloyd's iteration over drawn numbers, 256 or more a point, from points of that density.
Distortions, squared error a weight of N(0, 1), are compared in tests with those of research/01 section 2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitwright.core.grid_format import GRIDS

FILE = Path(__file__).with_name("gaussian_grids.npz")
Points = NDArray[np.float32]
#: Half the side of the lattice in standard deviations, its nodes a side for the square root of the points, and Lloyd's
#: iterations.
REACH, NODES, ROUNDS = 6.0, 24, 50
#: Numbers drawn for a point of a grid of three or four dimensions, and in all at least.
DRAWN, LEAST_DRAWN = 256, 1 << 18


@cache
def grid(name: str) -> Points:
    """float32 (n, p) points of `higgs-p{p}-n{n}`; in one dimension they ascend."""
    with np.load(FILE) as stored:
        points: Points = stored[name]
    points.setflags(write=False)
    return points


@cache
def grid_distortion(name: str) -> float:
    """Squared error a weight of N(0, 1): the grid's constant, measured when it was made."""
    with np.load(FILE) as stored:
        return float(stored[f"{name}.distortion"])


def scalar(bits: int) -> NDArray[np.float64]:
    """(n, 1) levels of Lloyd and Max, ascending and symmetric."""
    from scipy.special import ndtr, ndtri

    count = 1 << bits
    levels = math.sqrt(3) * ndtri((np.arange(count) + 0.5) / count)[count // 2 :]
    for _ in range(20_000):
        edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
        density = np.exp(-edges * edges / 2) / math.sqrt(2 * math.pi)
        after = (density[:-1] - density[1:]) / (ndtr(-edges[:-1]) - ndtr(-edges[1:]))
        if np.abs(after - levels).max() < 1e-12:
            break
        levels = after
    return np.concatenate([-levels[::-1], levels])[:, None]


def plane(bits: int) -> NDArray[np.float64]:
    """(n, 2) points in the plane, sorted by their first number."""
    from scipy.spatial import cKDTree

    count = 1 << bits
    number = np.arange(count)
    radius = np.sqrt(-4 * np.log1p(-(number + 0.5) / count))  # a normal of variance 2: the square root's density
    angle = number * math.pi * (3 - math.sqrt(5))
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    across = max(400, round(NODES * math.sqrt(count)))
    side = (np.arange(across) + 0.5) / across * 2 * REACH - REACH
    nodes = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    square = (nodes * nodes).sum(axis=1)
    nodes, weight = nodes[square < REACH**2], np.exp(-square[square < REACH**2] / 2)
    for _ in range(ROUNDS):
        nearest = cKDTree(points).query(nodes)[1]
        mass = np.bincount(nearest, weight, count)
        sums = np.stack([np.bincount(nearest, weight * nodes[:, axis], count) for axis in (0, 1)], axis=1)
        points = np.divide(sums, mass[:, None], out=points, where=mass[:, None] > 0)
    return points[np.lexsort((points[:, 1], points[:, 0]))]


def solid(bits: int, dimension: int) -> NDArray[np.float64]:
    """(n, dimension) points, sorted by their first number. Zador's density is a normal of variance (d + 2) / d."""
    from scipy.spatial import cKDTree

    count, rng = 1 << bits, np.random.default_rng(dimension << 8 | bits)
    points = rng.standard_normal((count, dimension)) * math.sqrt((dimension + 2) / dimension)
    nodes = rng.standard_normal((max(LEAST_DRAWN, DRAWN * count) // 2, dimension))
    nodes = np.concatenate([nodes, -nodes])
    for _ in range(ROUNDS):
        nearest = cKDTree(points).query(nodes)[1]
        mass = np.bincount(nearest, minlength=count)
        sums = np.stack([np.bincount(nearest, column, count) for column in nodes.T], axis=1)
        points = np.divide(sums, mass[:, None], out=points, where=mass[:, None] > 0)
    return points[np.argsort(points[:, 0], kind="stable")]


def distortion(points: NDArray[np.floating], samples: int = 1 << 20, seed: int = 0) -> float:
    """Squared error a weight of independent N(0, 1) numbers, by `samples` drawn points."""
    from scipy.spatial import cKDTree

    drawn = np.random.default_rng(seed).standard_normal((samples, points.shape[1]))
    return float((cKDTree(points).query(drawn)[0] ** 2).mean() / points.shape[1])


def main() -> None:
    makers: dict[int, Callable[[int], NDArray[np.float64]]]
    makers = {1: scalar, 2: plane, 3: partial(solid, dimension=3), 4: partial(solid, dimension=4)}
    made = {f"higgs-p{p}-n{1 << b}": makers[p](b).astype(np.float32) for p, widths in GRIDS.items() for b in widths}
    lost = {name: distortion(points, 1 << 22) for name, points in made.items()}
    constants = {f"{name}.distortion": np.float64(value) for name, value in lost.items()}
    np.savez(FILE, **made, **constants)  # type: ignore[arg-type]
    for name, value in lost.items():
        print(f"{name:16}{value:.7f}")


if __name__ == "__main__":
    main()
