"""What an outcome means for an envelope: gone, tried again, reported to its sender.

The order is always: what adds to the spool first, what removes last. An envelope leaves the disk
only when nothing is left to be said about it, and the scheduler only when it left the disk; what
the disk refuses is tried again.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, List, Optional

from smtpd_core.ids import format_evpid, msgid_of
from smtpd_core.mail.status import Outcome, Result
from smtpd_core.mda.deliver import delay_text
from smtpd_core.queue import bounce, retry
from smtpd_core.queue.disk import SpoolError

if TYPE_CHECKING:
    from smtpd_core.daemon.queue import Queue
    from smtpd_core.queue.envelope import Envelope

AGAIN_SECONDS = 5.0  # until a change that the disk refused is tried again
_COUNTERS = {
    Result.DELIVERED: "scheduler.delivery.ok",
    Result.TEMPORARY: "scheduler.delivery.tempfail",
    Result.PERMANENT: "scheduler.delivery.permfail",
    Result.LOOP: "scheduler.delivery.loop",
}


class Outcomes:
    """Settles what happened to envelopes that the scheduler gave out."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def settle(
        self, evpid: int, envelope: Envelope, found: Outcome, peer_reports: bool = False
    ) -> None:
        """Record an outcome."""
        self._queue.stats.add(_COUNTERS[found.result])
        if found.result is Result.TEMPORARY:
            await self._try_later(evpid, envelope, found)
        else:
            notice = bounce.bounce_of(
                envelope, found, self._queue.clock(), peer_reports=peer_reports
            )
            if notice is None and found.result is not Result.DELIVERED:
                self._explain_silence(envelope)
            await self._finish(evpid, notice)
        self._queue.wake()

    async def _try_later(self, evpid: int, envelope: Envelope, found: Outcome) -> None:
        """Store a failure, warn the sender if it is time, and let the envelope wait."""
        queue, now = self._queue, self._queue.clock()
        count = retry.count_retry(envelope.retry)
        due = queue.scheduler.try_later(evpid, count, now)
        delay = None
        if envelope.type != "bounce":
            interval = retry.warning_due(
                envelope.ctime, envelope.last_bounce, due, queue.policy.warn_seconds
            )
            if interval is not None:
                delay = bounce.Delay(interval, queue.ttl_of(envelope.dispatcher))
        try:
            notice = bounce.bounce_of(envelope, found, now, delay)
            if notice is not None:
                await self._add(evpid, notice)
            await queue.desk.update(evpid, bounce.record_failure(envelope, found, now, delay))
        except SpoolError as error:
            queue.log.complain(f"envelope {format_evpid(evpid)}: {error}")

    def _explain_silence(self, envelope: Envelope) -> None:
        if envelope.type == "bounce":
            self._queue.log.complain("queue: double bounce!")
        elif envelope.sender in ("", bounce.NULL_SENDER):
            self._queue.log.complain("queue: no return path!")

    async def _finish(self, evpid: int, notice: Optional[Envelope]) -> None:
        """Store the notice, then remove the envelope; both until they are done."""
        queue = self._queue
        while True:
            try:
                if notice is not None:
                    await self._add(evpid, notice)
                    notice = None
                await queue.desk.remove(evpid)
                break
            except SpoolError as error:
                queue.log.complain(f"envelope {format_evpid(evpid)}: {error}")
                if not error.temporary:
                    notice = None
                if queue.ending:
                    return  # the next start finds it as it was
                await asyncio.sleep(AGAIN_SECONDS)
        queue.note_removal()
        queue.scheduler.done(evpid)

    async def _add(self, evpid: int, notice: Envelope) -> None:
        queue, msgid = self._queue, msgid_of(evpid)
        (added,) = await queue.desk.call(lambda spool: spool.add_envelopes(msgid, [notice]))
        queue.stats.add("queue.bounce")
        queue.add(added, notice)

    async def expire(self, evpids: List[int]) -> None:
        """Give up envelopes whose time is over."""
        queue = self._queue
        for evpid, envelope in (await queue.read(evpids)).items():
            queue.stats.add("scheduler.envelope.expired")
            queue.log("info", self._line("Expire", evpid, envelope, "Envelope expired"))
            found = bounce.expired()
            notice = bounce.bounce_of(envelope, found, self._queue.clock())
            if notice is None:
                self._explain_silence(envelope)
            await self._finish(evpid, notice)

    async def remove(self, evpids: List[int]) -> None:
        """Remove envelopes that an administrator does not want."""
        queue = self._queue
        for evpid, envelope in (await queue.read(evpids)).items():
            queue.stats.add("scheduler.envelope.removed")
            queue.log("info", self._line("Remove", evpid, envelope, "Removed by administrator"))
            await self._finish(evpid, None)

    async def drop(self, evpids: List[int]) -> None:
        """Remove envelopes that are done with."""
        for evpid in evpids:
            await self._finish(evpid, None)

    def forget_unreadable(self, evpid: int, why: str) -> None:
        """Stop trying what cannot be read; it stays on the disk for the operator."""
        self._queue.log.complain(f"envelope {format_evpid(evpid)} is passed over: {why}")
        self._queue.scheduler.done(evpid)

    def _line(self, event: str, evpid: int, envelope: Envelope, stat: str) -> str:
        what = "delivery" if envelope.type == "mda" else "relay"
        sender = "" if envelope.sender == bounce.NULL_SENDER else envelope.sender
        rcpt = envelope.rcpt if envelope.rcpt != envelope.dest else "-"
        age = delay_text(max(0, self._queue.clock() - envelope.ctime))
        return (
            f"{what}: {event} for {format_evpid(evpid)}: from=<{sender}>, to=<{envelope.dest}>,"
            f" rcpt=<{rcpt}>, delay={age}, stat={stat}"
        )
