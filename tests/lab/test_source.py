"""Files that others write: safetensors, a folder of the transformers Trainer, shards, and a file of any size."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import agileact as ag
from agileact.lab.content.source import Checkpoint, Layer, open_source, open_upload, read_checkpoint

STATE = {
    "act.scale": ("F32", [3], struct.pack("<3f", 1.0, -0.5, 2.0)),
    "act.location": ("F64", [3], struct.pack("<3d", 0.0, 0.25, -1.0)),
    "fc.weight": ("F32", [2, 2], bytes(16)),
    # 1, -2 in the upper half of their float32.
    "half.scale": ("BF16", [2], bytes.fromhex("803f00c0")),
    "half.location": ("F16", [2], struct.pack("<2e", 0.5, -0.5)),
}
LAYERS = (Layer("act", (1.0, -0.5, 2.0), (0.0, 0.25, -1.0)), Layer("half", (1.0, -2.0), (0.5, -0.5)))


def written(state=STATE, **change):
    """Return a safetensors file, written by hand after its published layout."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, (dtype, shape, values) in state.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        header[name].update(change.get(name.replace(".", "_"), {}))
        data += values
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def layers_at(path: Path) -> tuple[Layer, ...]:
    source = open_source(path)
    assert isinstance(source, Checkpoint)
    return source.layers


@pytest.mark.parametrize("name", ["model.safetensors", "renamed.pt"])
def test_a_safetensors_file_gives_its_layers(tmp_path, name):
    (tmp_path / name).write_bytes(written())
    assert layers_at(tmp_path / name) == LAYERS
    text = base64.b64encode(written()).decode()
    assert open_upload(f"data:application/octet-stream;base64,{text}", name).layers == LAYERS


def test_what_safetensors_itself_writes_is_read(tmp_path):
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors is not installed").save_file
    module = ag.AgileReLU(4)
    with torch.no_grad():
        module.scale.copy_(torch.tensor([1.0, -2.0, 0.5, 3.0]))
    save_file({f"block.{key}": value for key, value in module.state_dict().items()}, tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path / "model.safetensors", "it") == [Layer("block", (1, -2, 0.5, 3), (0, 0, 0, 0))]


@pytest.mark.parametrize(
    "content",
    [
        written()[:60],
        written()[:-1],
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 4) + b"{[]}",
        struct.pack("<Q", 2) + b"{}",
        written(act_scale={"shape": [4]}),
        written(act_scale={"shape": [-1]}),
        written(act_scale={"data_offsets": [-4, 8]}),
        written(act_scale={"data_offsets": [0, 10**30]}),
        written(fc_weight={"shape": "large"}),
        written(fc_weight={"shape": [10**30]}),
        struct.pack("<Q", 200_000) + b"{" * 200_000,
    ],
)
def test_a_damaged_or_hostile_one_is_a_sentence(tmp_path, content):
    for name in ("model.safetensors", "model.pt"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ag.DataError, match=r"damaged|no agile activation"):
            open_source(tmp_path / name)


def test_a_name_that_ends_so_is_no_promise(tmp_path):
    torch.save(ag.AgileReLU(2).state_dict(), tmp_path / "model.safetensors")
    assert read_checkpoint(tmp_path / "model.safetensors", "it")[0].scale == (1.0, 1.0)
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ag.DataError, match="nor a safetensors file, or it is damaged"):
        open_source(tmp_path / "text.safetensors")


def test_a_folder_of_the_trainer_opens(tmp_path):
    inner = tmp_path / "출력" / "checkpoint-5"
    inner.mkdir(parents=True)
    (inner / "model.safetensors").write_bytes(written())
    assert layers_at(inner) == LAYERS
    with pytest.raises(ag.DataError, match=r"in .*출력; open one of those in it: checkpoint-5$"):
        open_source(inner.parent)


def test_a_state_in_several_files_is_read_by_its_index(tmp_path):
    keys = list(STATE)
    for part, names in (("a.safetensors", keys[:3]), ("b.safetensors", keys[3:])):
        (tmp_path / part).write_bytes(written({name: STATE[name] for name in names}))
    places = {name: "a.safetensors" if name in keys[:3] else "b.safetensors" for name in keys}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert layers_at(tmp_path) == layers_at(index) == LAYERS
    for content, words in (
        ("{}", "does not say where"),
        ("[", "does not say where"),
        (json.dumps({"weight_map": {"a": "../b.safetensors"}}), "not beside it"),
        (json.dumps({"weight_map": {"a": "gone.safetensors"}}), "there is no file"),
    ):
        index.write_text(content)
        with pytest.raises(ag.DataError, match=words):
            open_source(index)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_only_the_old_format_has_a_limit(tmp_path, monkeypatch, old):
    monkeypatch.setattr("agileact.lab.content.source._MOST_BYTES", 1000)
    path: Path = tmp_path / "model.pt"
    state = nn.Sequential(ag.AgileReLU(300)).state_dict()
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    if old:
        with pytest.raises(ag.DataError, match=r"in the old format of torch\.save, of which the lab reads up to"):
            open_source(path)
    else:
        assert layers_at(path) == (Layer("0", (1.0,) * 300, (0.0,) * 300),)
