"""What is taken in, whichever ledger takes it: ids batch by batch, and which drafts are new, known or contradict."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from itertools import islice

from attrs import field, frozen

from .records import NewDraft
from .states import State

__all__ = ["DraftJudge", "JudgedDrafts", "KnownDraft", "chunks"]


@frozen
class KnownDraft:
    """A draft that is in the run."""

    seq: int
    state: str
    payload_sha256: str

    def accepts(self, draft: NewDraft) -> bool:
        """Tell whether a draft may take the place of this one.

        An invalid one was never sent, so new content may, and so may the old where the rules now allow it.
        """
        return self.state == State.INVALID and (draft.error is None or self.payload_sha256 != draft.payload_sha256)


@frozen
class JudgedDrafts:
    """Of some drafts those that are new, and those that take the place of an invalid one, by the `seq` of each."""

    new: list[tuple[int, NewDraft]] = field(factory=list)
    corrected: list[tuple[int, NewDraft]] = field(factory=list)


class DraftJudge:
    """Judges the drafts of one command in their order; `last` is the last `seq` that was given to one.

    `counted` has what `Intake` counts, `conflicts` the keys that are known with other content.
    """

    def __init__(self, last: int) -> None:
        self.last = last
        self.counted = {"added": 0, "known": 0, "duplicates": 0}
        self.conflicts: dict[str, None] = {}
        self._met: set[str] = set()

    def judge(self, drafts: Sequence[NewDraft], known: Mapping[str, KnownDraft]) -> JudgedDrafts:
        """Judge some of the drafts; `known` is what the run has under their keys, those taken in before included."""
        judged, there_now = JudgedDrafts(), dict(known)
        for draft in drafts:
            there, met = there_now.get(draft.key), draft.key in self._met
            self._met.add(draft.key)
            if there is None:
                self.last += 1
                judged.new.append((self.last, draft))
                there_now[draft.key] = KnownDraft(self.last, State.PLANNED.value, draft.payload_sha256)
                self.counted["added"] += 1
            elif not met and there.accepts(draft):
                judged.corrected.append((there.seq, draft))
                there_now[draft.key] = KnownDraft(there.seq, State.PLANNED.value, draft.payload_sha256)
                self.counted["known"] += 1
            elif there.payload_sha256 != draft.payload_sha256:
                self.conflicts[draft.key] = None
            else:
                self.counted["duplicates" if met else "known"] += 1
        return judged


async def chunks(ids: Iterable[str] | AsyncIterable[str], batch: int) -> AsyncIterator[list[str]]:
    """Yield ids, `batch` at a time."""
    if isinstance(ids, AsyncIterable):
        chunk: list[str] = []
        async for key in ids:
            chunk.append(key)
            if len(chunk) == batch:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
        return
    source = iter(ids)
    while chunk := list(islice(source, batch)):
        yield chunk
