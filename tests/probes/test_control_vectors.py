import struct

import numpy as np
import pytest

from probes.directions import Direction
from probes.directions.control_vectors import export, read
from probes.records import Refusal


def direction(layer=1, seed=0, site="hook_resid_post", norm=2.5, model="abc", d=8):
    vector = np.random.default_rng(seed).normal(size=d)
    numbers = {"auc": 0.9, "auc_low": 0.8, "auc_high": 0.95, "auc_choice": 0.9}
    counts = {"rows": 40, "positives": 12, "problems": 9}
    return Direction(
        vector=(vector / np.linalg.norm(vector)).astype(np.float32),
        layer=layer,
        site=site,
        strategy="check",
        method="mean difference",
        norm=norm,
        null_mean=0.5,
        null_high=0.6,
        model=model,
        task="def",
        data="ghi",
        seed=0,
        **numbers,
        **counts,
    )


def by_hand(content):
    """The published layout, read with nothing but struct: {key: value}, {name: floats}."""
    magic, version, tensors, keys = struct.unpack_from("<4sIQQ", content)
    assert (magic, version) == (b"GGUF", 3)
    at = 24

    def take(form):
        nonlocal at
        found = struct.unpack_from(form, content, at)
        at += struct.calcsize(form)
        return found

    def text():
        return take(f"<{take('<Q')[0]}s")[0].decode()

    about = {}
    for _ in range(keys):
        key, (kind,) = text(), take("<I")
        about[key] = text() if kind == 8 else take({4: "<I", 5: "<i"}[kind])[0]
    infos = []
    for _ in range(tensors):
        name, (dims,) = text(), take("<I")
        shape, (kind, offset) = take(f"<{dims}Q"), take("<IQ")
        assert kind == 0, "f32"
        infos.append((name, shape[0], offset))
    start = -(-at // 32) * 32
    return about, {
        name: np.frombuffer(content, "<f4", size, start + offset) for name, size, offset in infos
    }


def test_the_file_has_the_layout_that_llama_cpp_reads(tmp_path):
    some = [direction(2, seed=1, norm=3.0), direction(1, seed=2, norm=0.5)]
    content = export(some, tmp_path / "v.gguf", architecture="llama").read_bytes()
    about, tensors = by_hand(content)
    assert about["general.architecture"] == "controlvector"
    assert about["controlvector.model_hint"] == "llama"
    assert about["controlvector.layer_count"] == 2
    assert set(tensors) == {"direction.1", "direction.2"}
    for one in some:
        assert tensors[f"direction.{one.layer}"] == pytest.approx(one.norm * one.vector, abs=1e-6)


def test_what_was_exported_is_read_back_in_units_of_the_norm(tmp_path):
    one = direction(1, norm=4.0)
    found = read(export([one], tmp_path / "v.gguf", architecture="llama"))
    assert list(found) == [1]
    assert np.linalg.norm(found[1]) == pytest.approx(4.0, rel=1e-6)
    assert found[1] / 4 == pytest.approx(one.vector, abs=1e-6)


@pytest.mark.parametrize(
    ("some", "says"),
    [
        ([], "no directions"),
        ([direction(0)], "layer 0 .* begins at layer 1"),
        ([direction(1, site="hook_mlp_out")], r"blocks\.1\.hook_mlp_out .*blocks\.1\.hook_resid_"),
        ([direction(1), direction(1, seed=3)], "2 directions of layer 1"),
        ([direction(1), direction(2, model="xyz")], "different models"),
    ],
)
def test_what_the_layout_cannot_hold_is_refused_and_nothing_is_written(some, says, tmp_path):
    with pytest.raises(Refusal, match=says):
        export(some, tmp_path / "v.gguf", architecture="llama")
    assert not list(tmp_path.iterdir())


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    path = export([direction(1)], tmp_path / "v.gguf", architecture="llama")
    whole = path.read_bytes()
    for content, says in [
        (b"", "GGUF"),
        (whole[: len(whole) // 2], "cut short"),
        (whole[:-8], "cut short"),
        (b"JUNK" + whole[4:], "GGUF"),
        (whole.replace(b"controlvector", b"controlveczor", 1), "controlveczor"),
        (whole.replace(b"direction.1", b"directian.1"), "directian.1"),
    ]:
        path.write_bytes(content)
        with pytest.raises(Refusal, match=says):
            read(path)
    with pytest.raises(Refusal, match="no control vector at"):
        read(tmp_path / "none.gguf")
