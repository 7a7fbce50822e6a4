"""What each forked process does: prepare with privileges, drop them, seal, serve."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING, Callable, Coroutine, List, Optional, Sequence, Tuple

from smtpd_core.config.model import Config, LocalAction
from smtpd_core.daemon import dispatcher, forward, loading, passwords, privileges
from smtpd_core.daemon.privileges import Identity
from smtpd_core.daemon.questions import encode_answer
from smtpd_core.daemon.queue import Queue
from smtpd_core.daemon.supervisor import EXIT_FAILURE, EXIT_OK, Ends
from smtpd_core.errors import SmtpdError
from smtpd_core.ipc import messages
from smtpd_core.queue import setup
from smtpd_core.queue.disk import SpoolError, SystemDisk
from smtpd_core.queue.spool import Spool
from smtpd_core.queue.storing import Settings
from smtpd_core.tables.passwd import system_user

if TYPE_CHECKING:
    import socket

    from smtpd_core.daemon.setting import Setting
    from smtpd_core.daemon.sockets import Listening
    from smtpd_core.ipc.messages import Message

Serve = Callable[[], Coroutine[object, object, bool]]


class DaemonRoles:
    """The roles of one start."""

    def __init__(self, setting: Setting, descriptors: int) -> None:
        self._setting = setting
        self._descriptors = descriptors

    def run_queue(self, config: Config, end: socket.socket) -> int:
        """Be the queue role."""
        setting = self._setting

        def serve_in(disk: SystemDisk) -> Serve:
            settings = Settings(config.queue.compression, setting.key, setting.server_name)
            spool = Spool.open(disk, settings, os.urandom)
            policy = self.policy(config)

            async def serve() -> bool:
                queue = Queue(spool, policy, end, setting.log)
                for kind in setting.paused - {"smtp"}:
                    queue.scheduler.pause(kind)
                return await queue.run()

            return serve

        def prepare() -> Serve:
            disk = SystemDisk.below(setting.spool)
            self._give_up(setting.queue, setting.spool)
            return serve_in(disk)

        return self._run("smtpd-queue", prepare)

    def run_dispatcher(
        self, config: Config, slot: int, listening: Sequence[Listening], ends: Ends
    ) -> int:
        """Be a dispatcher."""
        setting = self._setting

        def prepare() -> Serve:
            prepared = dispatcher.prepare(config, setting, listening, self._descriptors)
            self._give_up(setting.daemon, None)

            async def serve() -> bool:
                return await dispatcher.Dispatcher(prepared, *ends).run()

            return serve

        return self._run(f"smtpd-disp-{slot + 1}", prepare)

    def _give_up(self, identity: Identity, root: Optional[str]) -> None:
        """Give up root and the file system but for one directory, or all of it."""
        privileges.forbid_core_dumps()
        if self._setting.privileged:
            if root is None:
                privileges.enter_nowhere()
            else:
                privileges.enter(root)
            privileges.drop(identity)

    def _run(self, title: str, prepare: Callable[[], Serve]) -> int:
        log = self._setting.log
        privileges.set_title(title)
        try:
            serve = prepare()
            privileges.seal()
            return EXIT_OK if asyncio.run(serve()) else EXIT_FAILURE
        except SmtpdError as error:
            for line in str(error).splitlines():
                log("crit", f"fatal: {line}")
        except Exception as error:  # noqa: BLE001 - the boundary of a role
            log.confess(error)
        return EXIT_FAILURE

    def policy(self, config: Config) -> messages.QueuePolicy:
        """Give what the queue role needs of a configuration."""
        return queue_policy(config, self._setting.server_name)

    def answer(self, message: Message) -> bytes:
        """Answer what takes root, or another user, in a process of its own."""
        return encode_answer(self._answer(message))

    def _answer(self, message: Message) -> Message:
        setting = self._setting
        if isinstance(message, messages.ReadForward):
            if setting.privileged and message.uid != 0:
                privileges.drop(Identity(message.name, message.uid, message.gid))
            return forward.read_forward(message.home, message.uid)
        if isinstance(message, messages.ReadInclude):
            if setting.privileged:
                privileges.drop(setting.daemon)
            return forward.read_include(message.path)
        if isinstance(message, messages.FindUser):
            user = system_user(message.name)
            if user is None:
                return messages.FoundUser(0, 0, None)
            return messages.FoundUser(user.uid, user.gid, user.home)
        if isinstance(message, messages.CheckPassword):
            return messages.Checked(passwords.check_password(message.user, message.password))
        return messages.Failed("not a question for the supervisor")

    def load(self) -> Config:
        """Read the configuration again. Raises LoadError."""
        setting = self._setting
        config, warnings = loading.load(setting.config_path, setting.macros)
        loading.check_start(config)
        if config.queue.encryption and setting.key is None:
            raise loading.LoadError(["queue encryption cannot be turned on by a reload"])
        for line in warnings:
            setting.log("warn", line)
        return config


def queue_policy(config: Config, server_name: str) -> messages.QueuePolicy:
    """Take from a configuration what the queue role needs."""
    ttls: List[Tuple[str, int]] = []
    local: List[str] = []
    for name, action in config.actions.items():
        if action.ttl_seconds is not None:
            ttls.append((name, action.ttl_seconds))
        if isinstance(action, LocalAction):
            local.append(name)
    return messages.QueuePolicy(
        server_name,
        config.queue.ttl_seconds,
        tuple(ttls),
        tuple(local),
        tuple(config.bounce_warn_seconds),
        config.scheduler.max_inflight,
        config.scheduler.max_schedule,
    )


def prepare_spool(path: str, queue: Identity, *, privileged: bool) -> int:
    """Make the directories of a spool and lock it; give the descriptor that holds the lock.

    Raises SpoolError.
    """
    root = (0, 0) if privileged else (queue.uid, queue.gid)
    wanted = setup.directories(root[0], queue.uid, root[1], queue.gid)
    try:
        os.makedirs(path, 0o711, exist_ok=True)
    except OSError as error:
        raise SpoolError(f"{path}: {error.strerror}") from None
    disk = SystemDisk.below(path)
    try:
        setup.make_directories(disk, wanted)
        if not privileged:
            setup.fix_permissions(disk, wanted)
        problems = setup.find_problems(disk, wanted)
        if problems:
            raise SpoolError(f"{path}: {problems[0]}", temporary=False)
    finally:
        disk.release()
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise SpoolError(f"{path}: another daemon is using this spool") from None
    return lock
