"""What memory promises: the same likeness everywhere, nothing recalled unallowed, nothing kept that is forgotten."""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import creto
from creto.errors import InvalidInputError, NotFoundError, UnauthorizedError
from creto.memory import Entry, Index, Memory, Precedents, embed
from desks import AGENT, PRELUDE, Office, act, wait_for_request
from servers import Start

# --- the embedding ---------------------------------------------------------------------------------------------------


def test_the_embedding_is_the_same_in_every_process_and_release() -> None:
    digest = hashlib.sha256(np.round(embed("http:get example.org purpose survey") * 1e4).astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == GOLDEN
    assert embed("A b") is not embed("A b")
    assert (embed("Zahlung an Müller") == embed("ZAHLUNG AN MÜLLER")).all()


GOLDEN = "3d61d97a354b68a2"


@given(st.text(max_size=200))
@settings(max_examples=60)
def test_every_text_has_a_vector_of_length_one_or_of_zeros(text: str) -> None:
    length = float(np.linalg.norm(embed(text)))
    assert length == pytest.approx(1.0, abs=1e-5) or length == 0.0


def test_like_acts_are_alike() -> None:
    one, like, other = (embed(t) for t in ("pay DE89 1250 EUR", "pay DE89 80 EUR", "connect evil.example.net port 22"))
    assert one @ like > 0.5 > one @ other


# --- the index -------------------------------------------------------------------------------------------------------


def clustered(count: int, dimensions: int, seed: int) -> np.ndarray[Any, Any]:
    """Vectors around one centre for each fifty of them, at 0.35 of the centres' own spread."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(max(1, count // 50), dimensions))
    found = centres[draw.integers(0, len(centres), count)] + 0.35 * draw.normal(size=(count, dimensions))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(st.just(n), st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
    )
)
@settings(max_examples=40)
def test_a_search_finds_what_looking_at_each_one_finds(case: tuple[int, int, int, bool]) -> None:
    count, seed, most, forgetting = case
    vectors = clustered(count + 1, 16, seed)
    wanted, vectors = vectors[0], vectors[1:]
    index = Index(16)
    for at, vector in enumerate(vectors):
        index.add(str(at), vector * 3.0, subject="even" if at % 2 == 0 else "odd")
    left = range(count)
    if forgetting:
        assert index.forget("even") == (count + 1) // 2
        left = range(1, count, 2)
    expected = sorted(left, key=lambda at: -float(vectors[at] @ wanted))[:most]
    found = index.search(wanted * 0.5, most)
    assert [score for _, score in found] == pytest.approx([float(vectors[at] @ wanted) for at in expected], abs=1e-5)
    assert len({key for key, _ in found}) == len(expected)


def test_a_graph_finds_what_the_exact_search_finds() -> None:
    pytest.importorskip("usearch")
    vectors = clustered(6_000, 64, 3)
    exact, graph = Index(64), Index(64, graph_from=1_000)
    for at, vector in enumerate(vectors):
        exact.add(str(at), vector, subject=str(at % 7))
        graph.add(str(at), vector, subject=str(at % 7))
    wanted = clustered(100, 64, 3)

    def agreement() -> float:
        same = 0
        for vector in wanted:
            best = {key for key, _ in exact.search(vector, 10)}
            same += len(best & {key for key, _ in graph.search(vector, 10)})
        return same / (10 * len(wanted))

    assert agreement() >= 0.95  # threads make the graph, each time another
    assert graph._graph is not None
    for index in (exact, graph):
        index.forget("3")
        index.add("new", wanted[0])
    assert agreement() >= 0.95  # threads make the graph, each time another
    assert graph.search(wanted[0], 1)[0][0] == "new"
    assert all(int(key) % 7 != 3 for key, _ in graph.search(wanted[5], 50) if key != "new")


def test_a_graph_is_kept_beside_its_index_and_one_that_was_changed_is_made_anew(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    file = tmp_path / "acts.npz"
    vectors = clustered(3_000, 32, 5)
    index = Index(32, graph_from=1_000)
    for at, vector in enumerate(vectors):
        index.add(str(at), vector, subject=str(at % 7))
    found = index.search(vectors[17], 10)
    assert index.graph_unsaved
    index.save(file)
    assert not index.graph_unsaved
    back = Index.load(file, 32)
    assert back._graph is not None
    assert back._graph.rows == 3_000
    assert back.search(vectors[17], 10) == found
    (graph,) = tmp_path.glob("acts.*.graph")
    content = graph.read_bytes()
    graph.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert Index.load(file, 32)._graph is None
    graph.unlink()
    assert Index.load(file, 32)._graph is None
    # What is forgotten is in no older graph either.
    index.save(file)
    index.forget("3")
    index.save(file)
    assert list(tmp_path.glob("acts.*.graph")) == []


def test_an_index_survives_being_stored_and_a_damaged_file_is_an_empty_one(tmp_path: Path) -> None:
    index, file = Index(8), tmp_path / "memory" / "x.npz"
    for at, vector in enumerate(clustered(20, 8, 1)):
        index.add(f"k{at}", vector, subject="ann")
        index.reached("0000", at + 1)
    index.save(file)
    back = Index.load(file, 8)
    assert (len(back), back.positions) == (20, {"0000": 20})
    assert back.search(index.vectors[3], 5) == index.search(index.vectors[3], 5)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not an index", whole[:100] + b"\x00" * 50 + whole[150:]):
        file.write_bytes(damaged)
        assert len(Index.load(file, 8)) in (0, 20)
    assert len(Index.load(file, 9)) == 0


def test_a_stored_index_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    np.savez(file, format=np.array([print], dtype=object))
    assert len(Index.load(file, 8)) == 0


@pytest.mark.parametrize("vector", [np.zeros(7), np.full(8, np.nan), np.zeros((8, 1))])
def test_a_vector_of_another_shape_is_refused(vector: Any) -> None:
    with pytest.raises(InvalidInputError, match="8 finite numbers"):
        Index(8).add("x", vector)


# --- namespaces ------------------------------------------------------------------------------------------------------


class Notes:
    """A source of entries, and a list of who asked to recall."""

    def __init__(self) -> None:
        self.entries = [
            Entry("n1", "pay the supplier in March", "ann", 1),
            Entry("n2", "delete the backups", "bob", 2),
            Entry("n3", "pay the landlord", "ann", 3),
        ]
        self.looked = 0

    def after(self, read: Mapping[str, int]) -> Iterator[Entry]:
        self.looked += 1
        return iter([entry for entry in self.entries if entry.position > read.get("", 0)])


def refuse(who: str, namespace: str) -> None:
    if who != AGENT:
        raise UnauthorizedError(f"`{who}` may not recall from `{namespace}`")


def test_a_recall_is_allowed_before_anything_is_looked_at() -> None:
    notes = Notes()
    memory = Memory(None, refuse)
    memory.add("notes", notes.after)
    for name in ("notes", "no-such-memory"):
        with pytest.raises(UnauthorizedError, match=f"may not recall from `{name}`"):
            memory.recall("spiffe://creto.local/agent/eve", name, "pay")
    assert notes.looked == 0
    assert [found.key for found in memory.recall(AGENT, "notes", "paying the supplier", 2)] == ["n1", "n3"]
    with pytest.raises(NotFoundError, match="there is no memory `other`; there are `notes`"):
        memory.recall(AGENT, "other", "pay")
    with pytest.raises(InvalidInputError, match="cannot name a memory"):
        memory.add("../notes", notes.after)


def test_what_is_forgotten_stays_forgotten_on_disk_after_a_rebuild_and_in_other_processes(tmp_path: Path) -> None:
    notes = Notes()
    mine, theirs = Memory(tmp_path, refuse), Memory(tmp_path, refuse)
    for memory in (mine, theirs):
        memory.add("notes", notes.after)
        assert len(memory.recall(AGENT, "notes", "pay", 9)) == 3
    assert mine.forget("ann") == 2
    stored = (tmp_path / "notes.npz").read_bytes()
    for trace in (b"n\x00\x00\x001", b"ann", b"a\x00\x00\x00n\x00\x00\x00n", embed("pay the landlord").tobytes()):
        assert trace not in stored
    assert [found.key for found in theirs.recall(AGENT, "notes", "pay", 9)] == ["n2"]
    notes.entries += [Entry("n4", "pay ann", "ann", 4), Entry("n5", "pay the tax", "bob", 5)]
    assert {found.key for found in theirs.recall(AGENT, "notes", "pay", 9)} == {"n2", "n5"}
    assert mine.rebuild("notes") == 2
    assert {found.key for found in mine.recall(AGENT, "notes", "pay", 9)} == {"n2", "n5"}
    assert {found.key for found in theirs.recall(AGENT, "notes", "pay", 9)} == {"n2", "n5"}


def test_a_new_process_goes_on_from_where_the_file_is(tmp_path: Path) -> None:
    notes = Notes()
    first = Memory(tmp_path, refuse)
    first.add("notes", notes.after)
    first.recall(AGENT, "notes", "pay")
    asked: list[Mapping[str, int]] = []
    second = Memory(tmp_path, refuse)
    second.add("notes", lambda position: asked.append(position) or notes.after(position))  # type: ignore[func-returns-value]
    assert len(second.recall(AGENT, "notes", "pay", 9)) == 3
    assert asked == [{"": 3}]


# --- precedents ------------------------------------------------------------------------------------------------------


@pytest.fixture
def office(state: Path) -> Iterator[Office]:
    opened = Office(state)
    yield opened
    opened.close()


def decide(office: Office, what: Any, *, approved: bool, reason: str) -> None:
    async def ask() -> None:
        try:
            await office.desk.ask(what, ["payments"])
        except UnauthorizedError:
            assert not approved

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            (request,) = await anyio.to_thread.run_sync(wait_for_request, office.desk)
            answer = office.desk.approve if approved else office.desk.deny
            await anyio.to_thread.run_sync(answer, request, office.ann, reason)

    anyio.run(both)


def test_past_decisions_are_recalled_with_who_and_why_in_every_process_and_after_a_rebuild(
    office: Office, python: Start
) -> None:
    decide(office, act(80), approved=True, reason="known supplier")
    decide(office, act(9_000_000, to="CH93"), approved=False, reason="never heard of them")
    precedents = office.desk.precedents
    assert isinstance(precedents, Precedents)
    first, second = precedents.recall("tool:call tool:call send_money assistant amount 85 to DE89")
    assert (first.approved, first.reason, first.by) == (True, "known supplier", office.ann.id)
    assert (second.approved, second.reason) == (False, "never heard of them")
    assert 1.0 >= first.likeness > second.likeness > 0.35
    assert first.text == "tool:call send_money (amount 80, to DE89)"
    other = python(PRELUDE + "print([p.reason for p in desk.precedents.recall('tool:call send_money to DE89')])")
    assert other.communicate(timeout=60)[0].strip() == "['known supplier', 'never heard of them']"
    assert precedents.rebuild() == 2
    assert precedents.forget(AGENT) == 2
    assert precedents.recall("tool:call send_money to DE89") == []
    assert precedents.rebuild() == 0


def test_numpy_is_loaded_only_to_recall(python: Start) -> None:
    process = python("import sys, creto, creto.memory, creto.oversight; print('numpy' in sys.modules)")
    assert process.communicate(timeout=60)[0] == "False\n"
    assert "numpy" in sys.modules


# --- through the layer -----------------------------------------------------------------------------------------------

READERS = """
@id("use-tools") permit (principal, action == Action::"tool:call", resource);
@id("readers") permit (principal == Agent::"spiffe://creto.local/agent/reader", action == Action::"memory:read",
  resource == Memory::"acts");
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "readers.cedar").write_text(READERS)
    file = tmp_path / "own.toml"
    file.write_text('[authz]\npolicies = ["readers.cedar"]\n')
    return file


def test_past_acts_are_recalled_by_those_who_may_and_each_recall_is_on_record(state: Path, project: Path) -> None:
    async def main() -> None:
        async with creto.open(config=[project]) as layer:
            worker, reader = layer.agent("worker"), layer.agent("reader")
            for tool in ("pay_supplier", "delete_backups", "read_mail"):
                await layer.perform(worker, "tool:call", tool, lambda: None)
            with pytest.raises(UnauthorizedError, match="memory:read"):
                await layer.recall(worker, "acts", "paying a supplier")
            with pytest.raises(UnauthorizedError, match="memory:read"):
                await layer.recall(reader, "precedents", "paying a supplier")
            (first, *_) = await layer.recall(reader, "acts", "tool:call pay_supplier worker", most=1)
            (found,) = await layer.parts.audit.find(first.key)
            assert (found.what, found.resource, found.kind) == ("tool:call", "pay_supplier", "outcome")
            kinds = [(r.who.rsplit("/")[-1], r.ended) for r in await layer.parts.audit.query(action="memory:read")]
            assert [kind for kind in kinds if kind[1]] == [
                ("worker", "refused"), ("reader", "refused"), ("reader", "success")
            ]  # fmt: skip

    anyio.run(main)
    # It is rebuilt from the ledger alone, in a later process, and forgets whom it is told to.
    shutil.rmtree(state / "memory")

    async def later() -> None:
        async with creto.open(config=[project]) as layer:
            reader = layer.agent("reader")
            first = (await layer.recall(reader, "acts", "tool:call pay_supplier worker", most=1))[0]
            assert (await layer.parts.audit.find(first.key))[0].resource == "pay_supplier"
            assert layer.parts.memory.forget(layer.agent("worker").id) == 4
            found = await layer.recall(reader, "acts", "tool:call pay_supplier worker", most=9)
            whose = {(await layer.parts.audit.find(one.key))[0].who for one in found}
            assert whose == {reader.id}

    anyio.run(later)


def test_a_memory_keeps_the_latest_and_reads_every_part_of_its_source(tmp_path: Path) -> None:
    entries = [Entry(f"{part}/{n}", f"note {part} {n}", "", n + 1, part) for n in range(30) for part in "ab"]

    def after(read: Mapping[str, int]) -> Iterator[Entry]:
        return iter([entry for entry in entries if entry.position > read.get(entry.part, 0)])

    memory = Memory(tmp_path, refuse)
    memory.add("notes", after, most=20)
    assert memory.recall(AGENT, "notes", "note a 29", 1)[0].key == "a/29"
    namespace = memory._of("notes")
    assert len(namespace) == 20
    assert namespace.positions == {"a": 30, "b": 30}
    entries += [Entry("a/30", "note a 30", "", 31, "a")]
    again = Memory(tmp_path, refuse)
    again.add("notes", after, most=20)
    assert again.recall(AGENT, "notes", "note a 30", 1)[0].key == "a/30"
    assert again._of("notes").positions == {"a": 31, "b": 30}
