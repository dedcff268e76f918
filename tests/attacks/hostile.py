"""Hostile model folders: each function writes one. `python -m tests.attacks.hostile DIR` writes them all.

What each does to a careless reader is said in its docstring; `test_hostile.py` holds what beats it.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable
from pathlib import Path

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
NAME = "model.layers.0.mlp.up_proj.weight"
ATTACKS: dict[str, Callable[[Path], None]] = {}


def attack(build: Callable[[Path], None]) -> Callable[[Path], None]:
    ATTACKS[build.__name__] = build
    return build


def weights(folder: Path, header: bytes, data: bytes = b"", *, length: int | None = None) -> None:
    """A safetensors file with any header, and a config beside it."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    size = struct.pack("<Q", len(header) if length is None else length)
    (folder / "model.safetensors").write_bytes(size + header + data)


def entry(shape: str = "[2,2]", begin: str = "0", end: str = "16", dtype: str = "F32", name: str = NAME) -> str:
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}'


def header(*entries: str) -> bytes:
    return ("{" + ",".join(entries) + "}").encode()


@attack
def empty_file(folder: Path) -> None:
    """Reads past the end."""
    weights(folder, b"")
    (folder / "model.safetensors").write_bytes(b"")


@attack
def length_of_16_exabytes(folder: Path) -> None:
    """Allocates what the length field says."""
    weights(folder, header(entry()), bytes(16), length=2**64 - 1)


@attack
def length_beyond_the_file(folder: Path) -> None:
    """Reads a header that is not there."""
    weights(folder, header(entry()), length=1000)


@attack
def length_over_the_cap(folder: Path) -> None:
    """Parses gigabytes of JSON from a sparse file."""
    weights(folder, b"{", length=(32 << 20) + 1)
    os.truncate(folder / "model.safetensors", 64 << 20)


@attack
def header_is_no_json(folder: Path) -> None:
    weights(folder, b"{not json}")


@attack
def header_is_no_text(folder: Path) -> None:
    weights(folder, b'{"\xff\xfe":1}')


@attack
def header_is_a_list(folder: Path) -> None:
    weights(folder, b"[]")


@attack
def header_nests_a_million_deep(folder: Path) -> None:
    """Overflows the parser's stack."""
    weights(folder, b'{"a":' + b"[" * 1_000_000)


@attack
def header_of_empty_lists(folder: Path) -> None:
    """Each 3 bytes of JSON become 64 bytes of memory."""
    weights(folder, b'{"a":[' + b"[]," * 4_000_000 + b"[]]}")


@attack
def number_of_a_million_digits(folder: Path) -> None:
    """Converting it takes quadratic time."""
    weights(folder, header(entry(end="1" * 1_000_000)))


@attack
def tensor_stands_twice(folder: Path) -> None:
    """A checker sees one entry, a loader the other."""
    weights(folder, header(entry(), entry(begin="16", end="32")), bytes(32))


@attack
def shape_wraps_to_zero(folder: Path) -> None:
    """2^32 x 2^32 is 0 in 64 bits: a tensor of no bytes that indexes everything."""
    weights(folder, header(entry(shape="[4294967296,4294967296]", end="0")))


@attack
def shape_wraps_to_the_right_size(folder: Path) -> None:
    """(2^62 + 4) floats are 16 bytes in 64-bit arithmetic."""
    weights(folder, header(entry(shape=f"[{2**62 + 4}]")), bytes(16))


@attack
def shape_is_negative(folder: Path) -> None:
    weights(folder, header(entry(shape="[-2,-2]")), bytes(16))


@attack
def shape_is_fractional(folder: Path) -> None:
    weights(folder, header(entry(shape="[2.0,2.0]")), bytes(16))


@attack
def shape_is_true(folder: Path) -> None:
    """In Python True is 1."""
    weights(folder, header(entry(shape="[true,4]")), bytes(16))


@attack
def rank_of_nine(folder: Path) -> None:
    weights(folder, header(entry(shape="[1,1,1,1,1,1,1,2,2]")), bytes(16))


@attack
def dimension_too_large_for_numpy(folder: Path) -> None:
    """An empty array of this shape cannot even be made."""
    weights(folder, header(entry(shape=f"[0,{2**63}]", end="0")))


@attack
def dtype_is_unknown(folder: Path) -> None:
    weights(folder, header(entry(dtype="F7")), bytes(16))


@attack
def dtype_is_a_list(folder: Path) -> None:
    weights(folder, header(f'"{NAME}":{{"dtype":["F32"],"shape":[2,2],"data_offsets":[0,16]}}'), bytes(16))


@attack
def offsets_run_backwards(folder: Path) -> None:
    weights(folder, header(entry(begin="16", end="0")), bytes(16))


@attack
def offsets_reach_beyond_the_file(folder: Path) -> None:
    weights(folder, header(entry(shape="[4,4]", end="64")), bytes(16))


@attack
def offsets_overlap(folder: Path) -> None:
    """Writing one tensor changes the other."""
    weights(folder, header(entry(), entry(begin="8", end="24", name="b.weight")), bytes(24))


@attack
def offsets_leave_a_hole(folder: Path) -> None:
    """A hidden payload between tensors."""
    weights(folder, header(entry(), entry(begin="24", end="40", name="b.weight")), bytes(40))


@attack
def bytes_after_the_last_tensor(folder: Path) -> None:
    """A polyglot: another file behind the weights."""
    weights(folder, header(entry()), bytes(16) + b"PK\x05\x06" + bytes(18))


@attack
def entry_has_extra_members(folder: Path) -> None:
    weights(folder, header(entry()[:-1] + ',"url":"x"}'), bytes(16))


@attack
def entry_is_a_number(folder: Path) -> None:
    weights(folder, header(f'"{NAME}":7'))


@attack
def name_with_control_characters(folder: Path) -> None:
    """Rewrites the terminal or forges a line of the log."""
    weights(folder, header(entry(name="a\\u001b[2J\\nfake.weight")), bytes(16))


@attack
def name_with_half_a_character(folder: Path) -> None:
    """A lone surrogate cannot be written as UTF-8 later."""
    weights(folder, header(entry(name="a\\ud800.weight")), bytes(16))


@attack
def name_that_reads_backwards(folder: Path) -> None:
    """A right-to-left override shows another name than it is."""
    weights(folder, header(entry(name="a\\u202egnp.weight")), bytes(16))


@attack
def name_of_two_kilobytes(folder: Path) -> None:
    weights(folder, header(entry(name="a" * 2048)), bytes(16))


@attack
def name_that_is_empty(folder: Path) -> None:
    weights(folder, header(entry(name="")), bytes(16))


@attack
def metadata_is_no_text(folder: Path) -> None:
    weights(folder, header('"__metadata__":{"a":{"b":1}}', entry()), bytes(16))


@attack
def no_tensor_at_all(folder: Path) -> None:
    weights(folder, b"{}")


@attack
def two_million_experts(folder: Path) -> None:
    """One header line becomes two million units."""
    config = {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
    name = "model.layers.0.mlp.experts.down_proj"
    weights(folder, header(entry(shape="[2000000,1,1]", end="4000000", dtype="F16", name=name)), bytes(4_000_000))
    (folder / "config.json").write_text(json.dumps(config))


@attack
def model_type_is_a_number(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": 7}))


@attack
def config_is_missing(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "config.json").unlink()


@attack
def config_nests_deeply(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "config.json").write_text('{"a":' * 100 + "1" + "}" * 100)


@attack
def config_overflows_the_parser(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "config.json").write_text('{"a":' + "[" * 500_000)


@attack
def config_is_five_megabytes(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "config.json").write_text('{"a":"' + "x" * (5 << 20) + '"}')


@attack
def config_is_a_pipe(folder: Path) -> None:
    """Opening it waits for a writer for ever."""
    weights(folder, header(entry()), bytes(16))
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")


@attack
def weights_are_a_pipe(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


@attack
def weights_are_a_device(folder: Path) -> None:
    """/dev/zero never ends."""
    weights(folder, header(entry()), bytes(16))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/dev/zero")


@attack
def weights_link_to_themselves(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")


@attack
def index_leads_out_of_the_folder(folder: Path) -> None:
    """Reads any file of the machine."""
    weights(folder, header(entry()), bytes(16))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {NAME: "../../../etc/x.safetensors"}})
    )


@attack
def index_names_what_is_not_there(folder: Path) -> None:
    weights(folder, header(entry()), bytes(16))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"ghost.weight": "a.safetensors"}}))


@attack
def index_hides_a_tensor(folder: Path) -> None:
    weights(folder, header(entry(), entry(name="hidden", begin="16", end="32")), bytes(32))
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NAME: "a.safetensors"}}))


@attack
def pickled_weights(folder: Path) -> None:
    """A pickle that runs a command when it is read."""
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")


def main(target: Path) -> None:
    for name, build in ATTACKS.items():
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        build(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
