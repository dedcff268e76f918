"""Calibration data that every machine has: the Python standard library's own sources and, for images, sklearn's digits.

Source code is text that every causal language model knows; the docstrings in it are English prose for sentence models.
The list is fixed and the files are read in its order, so a given Python gives the same text everywhere. (The text
follows the Python version; the calibration digest in every table says which it was.)
"""

from __future__ import annotations

import ast
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from bitwright.core.errors import InvalidCalibration
from sensitivity.data import Data

MODULES = (
    "argparse", "ast", "asyncio/base_events", "asyncio/streams", "bdb", "calendar", "cmd", "codecs",
    "collections/__init__", "concurrent/futures/_base", "configparser", "contextlib", "copy", "csv",
    "dataclasses", "datetime", "difflib", "dis", "doctest", "email/message", "enum", "fractions", "ftplib",
    "functools", "glob", "gzip", "heapq", "html/parser", "http/client", "http/cookiejar", "http/server",
    "imaplib", "importlib/resources/__init__", "inspect", "ipaddress", "json/decoder", "json/encoder",
    "locale", "logging/__init__", "logging/handlers", "mailbox", "mimetypes", "numbers", "operator",
    "optparse", "pathlib", "pdb", "pickle", "pickletools", "platform", "plistlib", "poplib", "pprint",
    "profile", "queue", "random", "sched", "selectors", "shelve", "shlex", "shutil", "smtplib", "socket",
    "socketserver", "ssl", "statistics", "string", "subprocess", "tarfile", "tempfile", "textwrap",
    "threading", "timeit", "tokenize", "trace", "traceback", "typing", "unittest/case", "unittest/mock",
    "urllib/parse", "urllib/request", "uuid", "warnings", "wave", "weakref", "xml/dom/minidom",
    "xml/etree/ElementTree", "zipfile",
)  # fmt: skip
DESCRIPTION = "bundled: sources of the Python standard library"
PROSE_DESCRIPTION = "bundled: docstrings of the Python standard library"
IMAGES_DESCRIPTION = "bundled: scikit-learn's handwritten digits"
_SENTENCE_WORDS = (6, 80)
#: scikit-learn's file of them: 64 pixels of 0 .. 16 and the digit, a line an image.
_DIGITS = ("datasets", "data", "digits.csv.gz")


def _sources() -> list[str]:
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for module in MODULES:
        path = next((p for p in (root / f"{module}.py", root / module / "__init__.py") if p.is_file()), None)
        if path is not None:
            found.append(path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise InvalidCalibration(
            "this Python has no standard library sources to calibrate on", hint="give a text with --calibration FILE"
        )
    return found


def source_texts(characters: int) -> list[str]:
    """The front of every module, in whole lines, about `characters` in all (or everything there is)."""
    sources = _sources()
    share = min(1.0, characters / sum(len(text) for text in sources))
    parts = []
    for text in sources:
        lines = text.splitlines(keepends=True)
        parts.append("".join(lines[: max(1, round(len(lines) * share))]))
    return parts


def prose() -> list[str]:
    """Paragraphs of docstrings, one line each, without examples and tables."""
    paragraphs: dict[str, None] = {}
    for text in _sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                for part in (ast.get_docstring(node) or "").split("\n\n"):
                    words = part.split()
                    if (
                        _SENTENCE_WORDS[0] <= len(words) <= _SENTENCE_WORDS[1]
                        and ">>>" not in part
                        and "--" not in part
                    ):
                        paragraphs[" ".join(words)] = None
    return list(paragraphs)


def digits() -> Data:
    """1,797 images 8 x 8 in [-1, 1] with labels, as vision models normalise them."""
    # Found, not imported: scikit-learn with SciPy's optimizers takes 50 MiB, which a limit on memory counts.
    found = find_spec("sklearn")
    folders = found.submodule_search_locations if found is not None else None
    path = next((at for folder in folders or () if (at := Path(folder, *_DIGITS)).is_file()), None)
    if path is None:
        raise InvalidCalibration(
            "the bundled images need scikit-learn, which is not installed",
            hint="pip install scikit-learn, or give images with --calibration FILE.npz",
        )
    rows = np.loadtxt(path, delimiter=",", dtype=np.float32)
    pixels = (rows[:, :-1] / 16.0 * 2.0 - 1.0).reshape(-1, 1, 8, 8)
    return Data("images", {"pixel_values": np.ascontiguousarray(pixels)}, rows[:, -1].astype(np.int64))
