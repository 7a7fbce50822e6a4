"""The spool: create, commit, walk, update and remove what is in the queue; its only writer.

The promise: 250 after DATA is sent only when body, envelopes and the directory entries that lead
to them are on disk. What was accepted leaves the queue only by remove(). These states exist:

    what is on the disk                      what it is             what a start does with it
    ---------------------------------------  ---------------------  ---------------------------
    temporary/MSGID                          body being received    moves it to purge/N
    incoming/MSGID/ with anything in it      commit not finished;   moves it to purge/N
                                             no 250 was sent
    incoming/envelope.tmp.EVPID              a new text of an       deletes it: the old text
                                             envelope               is in its place
    queue/BB/                                bucket                 keeps it, empty or not
    queue/BB/MSGID/ with message and EVPIDs  message, whole         schedules each envelope
    the same, and EVPID.damaged              envelope set aside     tells; schedules the others
    queue/BB/MSGID/ with nothing in it       nothing                deletes it
    purge/N/MSGID/ with message and EVPIDs   completed message, or  deletes it, after an hour
                                             one never accepted

and these only where releases of OpenSMTPD, other programs or a broken disk worked on it:

    queue/BB/MSGID/ with EVPIDs, no message  body lost              tells; schedules, so that
                                                                    each sender gets a bounce
    queue/BB/MSGID/ with message only        envelopes lost, or     tells; keeps it
                                             left over
    an envelope that cannot be read          damaged                tells; keeps it
    any other name                           foreign                tells; keeps it

How the steps keep to it, when the disk may lose, in any order, whatever was not flushed:

- commit: write all in incoming/MSGID, flush each file, flush the directory; then one rename into
  queue/BB, whose entry, like that of a new bucket, is flushed before the caller hears of success.
- update, add: write beside the queue, flush, rename over the old text, flush the directory.
- remove: an envelope among others is unlinked. The last one goes with its message: one rename to
  purge/, and nothing in there is deleted before queue/BB was flushed. So an envelope never
  outlives its body. Until the next sync() a completed envelope may come back after a loss of
  power, and is then delivered twice: the time between two sync() bounds that.

A refusal of the disk raises SpoolError, which takes back what was done; a retry needs nothing
else. Calls must not overlap; only the flushes within one may run in threads (`run`).
Source: OpenSMTPD 6.8, queue_fs.c and queue_backend.c, for names and places.
"""

from __future__ import annotations

from smtpd_core import ids
from smtpd_core.errors import LocalError
from smtpd_core.queue import layout
from smtpd_core.queue.disk import FILE_MODE, SpoolError, quietly, refused
from smtpd_core.queue.layout import ENVELOPE_OCTETS_MAX
from smtpd_core.queue.recovery import DAMAGED, QueueWalk, new_generation, purge, put_away
from smtpd_core.queue.removal import Removal
from smtpd_core.queue.replacement import Replacement, replace_envelopes
from smtpd_core.queue.storing import StoredBody, format_stored, open_plain, parse_stored, wrap
from smtpd_core.queue.transaction import Flusher, Transaction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Optional, Union

    from smtpd_core.queue.disk import Disk
    from smtpd_core.queue.envelope import Envelope
    from smtpd_core.queue.recovery import Trouble
    from smtpd_core.queue.storing import Entropy, Settings
    from smtpd_core.queue.transaction import Owner, Runner
    from smtpd_core.queue.waiting import Waiting

_TRIES_MAX = 20  # random ids in a row that are taken: not with a source of chance that works
_PIECE = 1 << 18
_ASIDE_MAX = 100  # names tried for an envelope that is set aside


class NewMessage:
    """What is to be committed: a message and its envelopes, at least one.

    `body` is its octets, or how many octets were written to the file of open_body.
    """

    __slots__ = ("body", "envelopes", "msgid")

    def __init__(self, msgid: int, body: Union[bytes, int], envelopes: Sequence[Envelope]) -> None:
        """Take an id of new_msgid."""
        self.msgid = msgid
        self.body = body
        self.envelopes = envelopes


class Spool:
    """The spool below a Disk; there is one for each, and no other process writes there."""

    def __init__(self, disk: Disk, settings: Settings, entropy: Entropy, generation: str) -> None:
        """Wrap a spool that is ready, with a directory for what leaves it; see open."""
        self._disk = disk
        self._settings = settings
        self._entropy = entropy
        self._bodies: dict[int, tuple[int, str]] = {}  # msgid: handle, path (empty: unlinked)
        self._new_buckets: set[str] = set()  # made, and their entries not known to be on disk
        self._removal = Removal(disk, generation)

    @classmethod
    def open(cls, disk: Disk, settings: Settings, entropy: Entropy) -> Spool:
        """Make a spool ready whose directories exist, whatever a crash left. Raises SpoolError.

        entropy gives so many octets that nobody can guess.
        """
        try:
            disk.flush_directory("queue")  # buckets that a crashed process made
            put_away(disk, entropy)
            generation = new_generation(disk, entropy)
        except OSError as error:
            raise refused("the spool cannot be made ready", error) from None
        return cls(disk, settings, entropy, generation)

    # --- messages

    def new_msgid(self) -> int:
        """Choose the id of a message; raises SpoolError."""
        for _ in range(_TRIES_MAX):
            msgid = int.from_bytes(self._entropy(4), "big")
            try:
                if msgid and self._disk.status(layout.message_path(msgid)) is None:
                    return msgid
            except OSError as error:
                raise refused(layout.message_path(msgid), error) from None
        raise SpoolError("no free message id was found")

    def open_body(self, msgid: int) -> int:
        """Make the file that the body of a large message is written to; raises SpoolError.

        The handle stays ours: commit or discard_body closes it. The body lies there as it is,
        even when the queue is encrypted; then at least no name leads to it.
        """
        if msgid in self._bodies:
            raise LocalError(f"message {ids.format_msgid(msgid)} has a body already")
        path = f"temporary/{ids.format_msgid(msgid)}"
        try:
            handle = self._disk.create(path, FILE_MODE)
            if self._settings.wraps:
                quietly(self._disk.unlink, path)
        except OSError as error:
            raise refused(path, error) from None
        self._bodies[msgid] = handle, path
        return handle

    def discard_body(self, msgid: int) -> None:
        """Forget a body that will not be committed; nothing happens when there is none."""
        handle, path = self._bodies.pop(msgid, (-1, ""))
        if path:
            self._disk.close(handle)
            quietly(self._disk.unlink, path)

    def commit(self, message: NewMessage) -> list[int]:
        """Bring a message into the queue; give the ids of its envelopes once all is on disk.

        Raises SpoolError, and then nothing of it is in the queue.
        """
        (result,) = self.commit_many([message])
        if isinstance(result, SpoolError):
            raise result
        return result

    def commit_many(
        self, messages: Sequence[NewMessage], run: Runner = map
    ) -> list[Union[list[int], SpoolError]]:
        """Bring messages into the queue, which share the flushes of the disk.

        Gives for each the ids of its envelopes, or why it failed; one does not affect another.
        """
        flusher = Flusher(self._disk, run)
        transactions = [self._begin(message, flusher) for message in messages]
        flusher.files()
        flusher.directories({each.directory: [each] for each in transactions if not each.error})
        for each in transactions:
            self._publish(each)
        self._flush_entries([each for each in transactions if not each.error], flusher)
        for each in transactions:
            if each.error:
                each.discard()
        return [each.error or each.evpids for each in transactions]

    def _begin(self, message: NewMessage, flusher: Flusher) -> Transaction:
        """Write what a message consists of into incoming/; what fails carries its error."""
        transaction = Transaction(self._disk, message.msgid)
        try:
            self._write(transaction, message, flusher)
        except OSError as error:
            transaction.fail(transaction.directory, error)
        except SpoolError as error:
            transaction.error = error
        finally:
            self.discard_body(message.msgid)
        if transaction.error:
            transaction.discard()  # at once: others may need the room
        return transaction

    def _write(self, transaction: Transaction, message: NewMessage, flusher: Flusher) -> None:
        """Write body and envelopes; raises OSError and SpoolError."""
        if not message.body or not message.envelopes:
            raise SpoolError("a message has a body and an envelope", temporary=False)
        transaction.begin()
        if isinstance(message.body, bytes):
            octets = wrap(message.body, self._settings, self._entropy)
            handle = transaction.create(layout.MESSAGE, octets)
            flusher.add(transaction, transaction.directory, handle)
        else:
            self._take_body(transaction, message, message.body, flusher)
        evpids = self._new_evpids(message.msgid, len(message.envelopes))
        for evpid, envelope in zip(evpids, message.envelopes):
            octets = format_stored(envelope, self._settings, self._entropy)
            handle = transaction.create(ids.format_evpid(evpid), octets)
            flusher.add(transaction, transaction.directory, handle)
            transaction.evpids.append(evpid)

    def _take_body(
        self, transaction: Transaction, message: NewMessage, octets: int, flusher: Flusher
    ) -> None:
        """Use the file that a body was received into; raises OSError and SpoolError."""
        handle, path = self._bodies.get(message.msgid, (-1, ""))
        if not path:
            raise SpoolError("no file was opened for this body", temporary=False)
        size = self._disk.size(handle)
        if size != octets:  # the disk was full, and somebody did not look
            raise SpoolError(f"{path}: {size} octets where {octets} were received")
        if self._settings.wraps:
            plain = b"".join(StoredBody(self._disk, handle).pieces(_PIECE))
            stored = wrap(plain, self._settings, self._entropy)
            copy = transaction.create(layout.MESSAGE, stored)
            flusher.add(transaction, transaction.directory, copy)
        else:
            transaction.adopt(path)
            del self._bodies[message.msgid]
            flusher.add(transaction, transaction.directory, handle)

    def _publish(self, transaction: Transaction) -> None:
        if transaction.error:
            return
        try:
            transaction.publish(self._new_buckets)
        except OSError as error:
            transaction.fail(transaction.place, error)

    def _flush_entries(self, transactions: list[Transaction], flusher: Flusher) -> None:
        """Flush every directory entry that leads to the messages."""
        if not transactions:
            return
        owners: dict[str, list[Owner]] = {}
        for each in transactions:
            owners.setdefault(each.bucket, []).append(each)
            if each.bucket in self._new_buckets:
                owners.setdefault("queue", []).append(each)
        owners["incoming"] = list(transactions)
        flusher.directories(owners)
        if "queue" in owners and not any(each.error for each in transactions):
            self._new_buckets.clear()

    def open_message(self, msgid: int) -> int:
        """Open a message for reading, at its beginning, as the text that was received.

        Of a message that is compressed or encrypted this is a copy without a name.
        Raises SpoolError, not temporary when the message is missing or damaged.
        """
        path = f"{layout.message_path(msgid)}/{layout.MESSAGE}"
        copy = f"temporary/smtpd.{self._entropy(8).hex()}"
        return open_plain(self._disk, path, self._settings.key, copy)

    def close_message(self, handle: int) -> None:
        """Close what open_message opened."""
        self._disk.close(handle)

    # --- envelopes

    def read_envelope(self, evpid: int) -> Envelope:
        """Read an envelope; raises SpoolError, not temporary when it is missing or damaged."""
        path = _envelope_path(evpid)
        try:
            octets = self._disk.load(path, ENVELOPE_OCTETS_MAX + 1)
        except FileNotFoundError:
            raise SpoolError(f"{path}: there is no such envelope", temporary=False) from None
        except OSError as error:
            raise refused(path, error) from None
        try:
            return parse_stored(octets, self._settings.key)
        except SpoolError as error:
            raise SpoolError(f"{path}: {error}", temporary=False) from None

    def update(self, evpid: int, envelope: Envelope) -> None:
        """Replace the text of an envelope, in the format it has; raises SpoolError."""
        (error,) = self.update_many([(evpid, envelope)])
        if error is not None:
            raise error

    def update_many(
        self, envelopes: Iterable[tuple[int, Envelope]], run: Runner = map
    ) -> list[Optional[SpoolError]]:
        """Replace the texts of envelopes, which share the flushes; give what failed of each."""
        replacements = [Replacement(evpid, self._store(each)) for evpid, each in envelopes]
        replace_envelopes(self._disk, replacements, run)
        return [each.error for each in replacements]

    def add_envelopes(
        self, msgid: int, envelopes: Sequence[Envelope], run: Runner = map
    ) -> list[int]:
        """Add envelopes, such as bounces, to a message in the queue: all of them or none.

        Raises SpoolError. Whoever removes the envelope that a bounce is about does so afterwards.
        """
        evpids = self._new_evpids(msgid, len(envelopes))
        replacements = [
            Replacement(evpid, self._store(envelope), added=True)
            for evpid, envelope in zip(evpids, envelopes)
        ]
        replace_envelopes(self._disk, replacements, run)
        errors = [each.error for each in replacements if each.error is not None]
        if errors:
            for each in replacements:
                each.discard(self._disk)
            raise errors[0]
        return evpids

    def _store(self, envelope: Envelope) -> Union[bytes, SpoolError]:
        try:
            return format_stored(envelope, self._settings, self._entropy)
        except SpoolError as error:
            return error

    def remove(self, evpid: int) -> None:
        """Take an envelope out of the queue, and its message with the last one.

        Raises SpoolError; an envelope that is not there is no error.
        """
        self._removal.remove(evpid)

    def sync(self, run: Runner = map) -> None:
        """Make sure that what was removed stays removed, and free the room it took.

        For the caller to do every few seconds. Raises SpoolError; the rest is done all the same.
        """
        self._removal.sync(run)

    def set_aside(self, evpid: int) -> str:
        """Give a damaged envelope a name that every daemon passes over; tell the path.

        Its message stays until an operator repaired or removed it. Raises SpoolError.
        """
        path = _envelope_path(evpid)
        aside = path + DAMAGED
        try:
            for counter in range(1, _ASIDE_MAX):
                if self._disk.status(aside) is None:
                    break
                aside = f"{path}{DAMAGED}.{counter}"
            else:
                raise SpoolError(f"{path}: set aside too often")
            self._disk.rename(path, aside)
            self._disk.flush_directory(path[: path.rindex("/")])
        except OSError as error:
            raise refused(path, error) from None
        return aside

    def _new_evpids(self, msgid: int, count: int) -> list[int]:
        """Choose ids for envelopes; that they are free shows when they are created."""
        evpids: dict[int, None] = {}
        for _ in range(count + _TRIES_MAX):
            low = int.from_bytes(self._entropy(4), "big")
            if low:
                evpids[msgid << 32 | low] = None
            if len(evpids) == count:
                return list(evpids)
        raise SpoolError("no free envelope id was found")

    # --- start and housekeeping

    def walk(self) -> Iterator[Union[Waiting, Trouble]]:
        """Give each envelope in the queue for the scheduler, and each thing that is wrong.

        Messages may be committed and removed meanwhile; such an envelope may be given or not.
        """
        return QueueWalk(self._disk, self._settings.key).walk()

    def walk_message(self, msgid: int) -> Iterator[Union[Waiting, Trouble]]:
        """Give the same for one message, which somebody put there (`smtpctl discover`)."""
        return QueueWalk(self._disk, self._settings.key).message(msgid)

    def purge(self, now: int) -> Iterator[None]:
        """Delete what earlier starts put away an hour ago; comes back every few hundred names."""
        return purge(self._disk, now, self._removal.generation)


def _envelope_path(evpid: int) -> str:
    return f"{layout.message_path(ids.msgid_of(evpid))}/{ids.format_evpid(evpid)}"
