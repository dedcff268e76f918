"""Opening by reference: folders, roots, packages, shards; what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bitwright.core.errors import InvalidModel, InvalidReference, UnsafeFormat
from bitwright.models import inspect, open_model
from bitwright.models.limits import Limits
from tests.models_inspect.checkpoints import LAYOUTS, safetensors, write

LLAMA = LAYOUTS["llama-gqa"]


def test_folder(tmp_path: Path) -> None:
    source = open_model(str(write(tmp_path / "m", LLAMA)))
    assert source.ref == str(tmp_path / "m")
    assert source.config["model_type"] == "llama"
    assert next(iter(source.tensors)) == "model.embed_tokens.weight"


def test_a_server_refuses_bare_paths(tmp_path: Path) -> None:
    with pytest.raises(InvalidReference, match="no bare paths"):
        open_model(str(write(tmp_path / "m", LLAMA)), allow_path=False)


def test_root(tmp_path: Path) -> None:
    write(tmp_path / "root" / "a" / "b", LLAMA)
    source = open_model("file:models/a/b", roots={"models": tmp_path / "root"}, allow_path=False)
    assert source.ref == "file:models/a/b"
    assert source.read_float32("model.norm.weight").shape == (64,)


def test_unknown_root_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(InvalidReference, match="one of: models"):
        open_model("file:elsewhere/a", roots={"models": tmp_path})


@pytest.mark.parametrize("linked", ["folder", "weights", "config.json"])
def test_links_out_of_a_root_are_refused(linked: str, tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", LLAMA)
    inside = tmp_path / "root" / "m"
    if linked == "folder":
        inside.parent.mkdir()
        inside.symlink_to(outside)
    else:
        name = "model.safetensors" if linked == "weights" else linked
        write(inside, LLAMA)
        (inside / name).unlink()
        (inside / name).symlink_to(outside / name)
    with pytest.raises(InvalidReference, match="leads out"):
        open_model("file:r/m", roots={"r": tmp_path / "root"})
    assert open_model(str(inside)).tensors, "a person's own folder may hold links"


def test_links_inside_a_root_are_followed(tmp_path: Path) -> None:
    write(tmp_path / "blobs", LLAMA)
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "m" / name).symlink_to(tmp_path / "blobs" / name)
    assert inspect(open_model("file:r/m", roots={"r": tmp_path})).units


def test_link_swapped_after_opening_is_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "outside", LLAMA)
    inside = write(tmp_path / "root" / "m", LLAMA)
    source = open_model("file:r/m", roots={"r": tmp_path / "root"})
    (inside / "model.safetensors").unlink()
    (inside / "model.safetensors").symlink_to(secret / "model.safetensors")
    with pytest.raises(InvalidReference, match="leads out"):
        source.read("model.norm.weight")


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="there is no nothing"):
        open_model(str(tmp_path / "nothing"))


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="an empty folder"):
        open_model(str(tmp_path))


def test_folder_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(InvalidModel, match="none of them safetensors"):
        open_model(str(tmp_path))


def test_folder_of_models_names_them(tmp_path: Path) -> None:
    write(tmp_path / "one", LLAMA)
    write(tmp_path / "two", LLAMA)
    with pytest.raises(InvalidModel, match="one, two"):
        open_model(str(tmp_path))


def test_weights_without_config(tmp_path: Path) -> None:
    write(tmp_path, LLAMA)
    (tmp_path / "config.json").unlink()
    with pytest.raises(InvalidModel, match=r"no config\.json"):
        open_model(str(tmp_path))


def test_config_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InvalidModel, match="holds no weights"):
        open_model(str(tmp_path))


def test_weight_file_given_instead_of_its_folder(tmp_path: Path) -> None:
    write(tmp_path, LLAMA)
    with pytest.raises(InvalidModel, match="give its folder"):
        open_model(str(tmp_path / "model.safetensors"))


def test_adapter_is_told_from_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors({}))
    with pytest.raises(InvalidModel, match="merge it into its base model"):
        open_model(str(tmp_path))


def test_safetensors_beside_pickles_are_used(tmp_path: Path) -> None:
    write(tmp_path, LLAMA)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert open_model(str(tmp_path)).tensors


def test_package_folder_with_the_model_inside(tmp_path: Path) -> None:
    write(tmp_path / "model", LAYOUTS["bert"])
    (tmp_path / "__init__.py").write_text("")
    assert inspect(open_model(str(tmp_path))).task == "embedding"


def test_sentence_transformers_folder_with_a_part(tmp_path: Path) -> None:
    write(tmp_path / "0_Transformer", LAYOUTS["llama-tied"])
    (tmp_path / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "0_Transformer"}, {"path": "1_Pooling"}])
    )
    source = open_model(str(tmp_path))
    assert source.path == (tmp_path / "0_Transformer").resolve()
    assert source.sentence_transformers


def test_sentence_transformers_part_that_leads_out(tmp_path: Path) -> None:
    write(tmp_path / "other", LLAMA)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "modules.json").write_text(json.dumps([{"path": "../other"}]))
    with pytest.raises(InvalidReference, match="leads out"):
        open_model(str(tmp_path / "m"))


def test_missing_shards_are_listed(tmp_path: Path) -> None:
    write(tmp_path, LLAMA, shards=4)
    for part in (2, 4):
        (tmp_path / f"model-0000{part}-of-00004.safetensors").unlink()
    with pytest.raises(InvalidModel) as caught:
        open_model(str(tmp_path))
    assert caught.value.extra["missing"] == ["model-00002-of-00004.safetensors", "model-00004-of-00004.safetensors"]
    assert "2 of 4 weight files" in caught.value.detail


def test_missing_index(tmp_path: Path) -> None:
    write(tmp_path, LLAMA, shards=2)
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(InvalidModel, match="no index"):
        open_model(str(tmp_path))


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    write(tmp_path, LLAMA, shards=2)
    first = tmp_path / "model-00001-of-00002.safetensors"
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(InvalidModel, match="stands in two"):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    "index", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "a.bin"}}']
)
def test_bad_index(index: str, tmp_path: Path) -> None:
    write(tmp_path, LLAMA, shards=2)
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InvalidModel, match=r"index\.json"):
        open_model(str(tmp_path))


def test_sharded_pickles_are_unsafe(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model-00001-of-00002.bin").write_bytes(b"")
    (tmp_path / "pytorch_model.bin.index.json").write_text("{}")
    with pytest.raises(UnsafeFormat):
        open_model(str(tmp_path))


def test_size_limit_of_the_whole_model(tmp_path: Path) -> None:
    size = (write(tmp_path, LLAMA) / "model.safetensors").stat().st_size
    assert open_model(str(tmp_path), limits=Limits(model_bytes=size)).tensors
    with pytest.raises(InvalidModel, match="too large"):
        open_model(str(tmp_path), limits=Limits(model_bytes=size - 1))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", ["llama"]),
        ("model_type", "a\u0007"),
        ("architectures", "LlamaForCausalLM"),
        ("num_hidden_layers", "2"),
        ("tie_word_embeddings", 1),
    ],
)
def test_config_members_of_the_wrong_kind(key: str, value: object, tmp_path: Path) -> None:
    write(tmp_path, ({**LLAMA[0], key: value}, LLAMA[1]))
    with pytest.raises(InvalidModel, match=f"wrong at '{key}'"):
        inspect(open_model(str(tmp_path)))
