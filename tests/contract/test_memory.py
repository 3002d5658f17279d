"""What memory promises: the same likeness everywhere, nothing recalled unallowed, nothing kept that is forgotten."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
@settings(max_examples=60, deadline=None)
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
@settings(max_examples=40, deadline=None)
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

    assert agreement() >= 0.99
    assert graph._graph is not None
    for index in (exact, graph):
        index.forget("3")
        index.add("new", wanted[0])
    assert agreement() >= 0.99
    assert graph.search(wanted[0], 1)[0][0] == "new"
    assert all(int(key) % 7 != 3 for key, _ in graph.search(wanted[5], 50) if key != "new")


def test_an_index_survives_being_stored_and_a_damaged_file_is_an_empty_one(tmp_path: Path) -> None:
    index, file = Index(8), tmp_path / "memory" / "x.npz"
    for at, vector in enumerate(clustered(20, 8, 1)):
        index.add(f"k{at}", vector, subject="ann", position=at + 1)
    index.save(file)
    back = Index.load(file, 8)
    assert (len(back), back.position) == (20, 20)
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

    def after(self, position: int) -> Iterator[Entry]:
        self.looked += 1
        return iter([entry for entry in self.entries if entry.position > position])


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
    asked: list[int] = []
    second = Memory(tmp_path, refuse)
    second.add("notes", lambda position: asked.append(position) or notes.after(position))  # type: ignore[func-returns-value]
    assert len(second.recall(AGENT, "notes", "pay", 9)) == 3
    assert asked == [3]


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
    assert other.communicate(timeout=20)[0].strip() == "['known supplier', 'never heard of them']"
    assert precedents.rebuild() == 2
    assert precedents.forget(AGENT) == 2
    assert precedents.recall("tool:call send_money to DE89") == []
    assert precedents.rebuild() == 0


def test_numpy_is_loaded_only_to_recall(python: Start) -> None:
    process = python("import sys, creto, creto.memory, creto.oversight; print('numpy' in sys.modules)")
    assert process.communicate(timeout=20)[0] == "False\n"
    assert "numpy" in sys.modules
