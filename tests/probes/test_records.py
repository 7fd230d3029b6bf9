"""Laws of the records: content hashes, whole files or none, tables that come back as they were."""

from dataclasses import dataclass, replace

import pyarrow.parquet as pq
import pytest

from probes.records import (
    SITES,
    Problem,
    Refusal,
    Rollout,
    atomic_write,
    parse_site,
    read_table,
    read_toml,
    site_name,
    write_table,
)

PROBLEM = Problem("t", "1 + 1 =", "2", "sum", "", 1, '{"x": 1}')
ROLLOUTS = [
    Rollout("p", 0, (5, 6, 1), (-0.5, -1.25, 0.0), "a b", "stop"),
    Rollout("p", 1, (), (), "", "length", "steered"),
]


def test_a_problem_is_known_by_its_content_alone():
    assert PROBLEM.id == replace(PROBLEM).id
    for field, value in (("prompt", "1 + 2 ="), ("answer", "3"), ("spec", "{}"), ("task", "u")):
        assert replace(PROBLEM, **{field: value}).id != PROBLEM.id
    assert PROBLEM.parameters == {"x": 1}


def test_a_site_comes_back_from_its_name():
    for site in SITES:
        assert parse_site(site_name(3, site)) == (3, site)


@pytest.mark.parametrize("name", ["blocks.1.hook_z", "1.hook_resid_pre", "blocks.x.hook_mlp_out"])
def test_an_unknown_site_is_refused_with_those_there_are(name):
    with pytest.raises(Refusal, match="hook_resid_post"):
        parse_site(name)


def test_a_table_comes_back_as_it_was_written(tmp_path):
    write_table(tmp_path / "r.parquet", ROLLOUTS, Rollout, seed=7)
    rows, about = read_table(tmp_path / "r.parquet", Rollout)
    assert rows == ROLLOUTS
    assert about["seed"] == 7


def test_an_empty_table_keeps_its_columns(tmp_path):
    write_table(tmp_path / "r.parquet", [], Rollout)
    assert read_table(tmp_path / "r.parquet", Rollout)[0] == []
    assert pq.read_table(tmp_path / "r.parquet").column_names[0] == "problem"


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    file = tmp_path / "f"
    file.write_text("before")

    def interrupted():
        with atomic_write(file) as handle:
            handle.write(b"half of the new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]  # and nothing beside it


@dataclass(frozen=True)
class Other:
    """A kind of row with a column that rollouts lack."""

    colour: str


def test_a_table_that_is_not_what_was_asked_for_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "r.parquet"
    with pytest.raises(Refusal, match="no table"):
        read_table(file, Rollout)
    write_table(file, ROLLOUTS, Rollout)
    with pytest.raises(Refusal, match="holds Rollout, not Other"):
        read_table(file, Other)
    monkeypatch.setattr("probes.records.SCHEMA_VERSION", 0)
    with pytest.raises(Refusal, match="a newer whenhow wrote it"):
        read_table(file, Rollout)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(Refusal, match="truncated or damaged"):
        read_table(file, Rollout)


def test_toml_is_read_with_the_mark_that_windows_editors_put_before_it(tmp_path):
    file = tmp_path / "own.toml"
    for start in (b"", b"\xef\xbb\xbf"):
        file.write_bytes(start + 'name = "π"\r\n'.encode())
        assert read_toml(file, tmp_path, "thing") == (file, {"name": "π"})
    file.write_bytes(b"\xff\xfe" + 'name = "x"'.encode("utf-16-le"))
    with pytest.raises(Refusal, match="not valid TOML"):
        read_toml(file, tmp_path, "thing")
