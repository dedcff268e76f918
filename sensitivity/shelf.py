"""Tensors that wait for their turn: in the host's memory up to a limit, in files of a folder beyond."""

from __future__ import annotations

from pathlib import Path

import torch

Key = tuple[str | int, ...]


class Shelf:
    """Tensors by key, in memory up to `limit` bytes, in `folder` beyond; they come back on the device they were on."""

    def __init__(self, limit: int, folder: Path) -> None:
        self._limit = limit
        self._folder = folder
        self._kept: dict[Key, torch.Tensor] = {}
        self._files: dict[Key, Path] = {}
        self._devices: dict[Key, torch.device] = {}
        self._used = 0

    def put(self, key: Key, value: torch.Tensor) -> None:
        self.drop(key)
        self._devices[key] = value.device
        # A device keeps what it computes on; what waits is the host's.
        value = value.detach().cpu() if value.device.type != "cpu" else value
        size = value.numel() * value.element_size()
        if self._used + size <= self._limit:
            self._kept[key] = value
            self._used += size
        else:
            # A view of a larger tensor would be saved with all of it.
            self._files[key] = self._folder / "-".join(map(str, key))
            torch.save(value.detach().clone(), self._files[key])

    def get(self, key: Key) -> torch.Tensor:
        if key in self._kept:
            return self._kept[key].to(self._devices[key])
        value: torch.Tensor = torch.load(self._files[key], weights_only=True)
        return value.to(self._devices[key])

    def drop(self, key: Key) -> None:
        value = self._kept.pop(key, None)
        if value is not None:
            self._used -= value.numel() * value.element_size()
        elif key in self._files:
            self._files.pop(key).unlink()

    def clear(self) -> None:
        for key in (*self._kept, *self._files):
            self.drop(key)
