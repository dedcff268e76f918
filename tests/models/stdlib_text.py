"""The text the small language models learn: the running interpreter's own standard library, split by file.

Usage: python tests/models/stdlib_text.py   (rewrites text/valid.txt and text/test.txt)
"""

import hashlib
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
TEXT_FOLDER = HERE / "text"
EXCERPT_BYTES = 300_000
# Installed packages are not the standard library; the test folders would outweigh everything else; idlelib and
# lib2to3 because whether they are installed differs from one distribution to the next; encodings and pydoc_data
# because they are generated tables and manual text rather than code.
EXCLUDED_FOLDERS = {
    "__pycache__",
    "dist-packages",
    "encodings",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
}
SPLITS = ("train", "valid", "test")


def stdlib_files() -> list[tuple[str, Path]]:
    """List the standard library's Python sources as (relative path, file), in the order of the relative paths."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).parts
        # config-3.x-<platform> and _sysconfigdata describe one build of the interpreter, not the library.
        built = any(part.startswith(("config-", "_sysconfigdata")) for part in parts)
        if not built and EXCLUDED_FOLDERS.isdisjoint(parts):
            found.append(("/".join(parts), path))
    return sorted(found)


def split_of(relative_path: str) -> str:
    """Assign a file to train (80 %), valid (10 %) or test (10 %) by a hash of its path, so that the rest can't move."""
    bucket = int.from_bytes(hashlib.sha256(relative_path.encode()).digest()[:8], "big") % 10
    return "train" if bucket < 8 else "valid" if bucket == 8 else "test"


def split_texts(split: str) -> list[str]:
    """Return the file contents of one split; files that are not UTF-8 are skipped."""
    texts = []
    for relative_path, path in stdlib_files():
        if split_of(relative_path) != split:
            continue
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    return texts


def excerpt(split: str) -> str:
    """Return about EXCERPT_BYTES of a split: the same share from the front of each file, so that all files appear."""
    texts = split_texts(split)
    share = min(1.0, EXCERPT_BYTES / sum(len(text.encode()) for text in texts))
    parts = []
    for text in texts:
        lines = text.splitlines(keepends=True)
        parts.append("".join(lines[: max(1, round(len(lines) * share))]))
    return "".join(part if part.endswith("\n") else part + "\n" for part in parts)


def committed_text(split: str) -> str:
    """Read the committed excerpt of the valid or the test split."""
    return (TEXT_FOLDER / f"{split}.txt").read_text(encoding="utf-8")


def main() -> None:
    """Rewrite the committed excerpts and say how large each split is."""
    TEXT_FOLDER.mkdir(exist_ok=True)
    for split in SPLITS:
        texts = split_texts(split)
        print(f"{split}: {len(texts)} files, {sum(len(text.encode()) for text in texts):,} bytes", file=sys.stderr)
    for split in SPLITS[1:]:
        (TEXT_FOLDER / f"{split}.txt").write_text(excerpt(split), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
