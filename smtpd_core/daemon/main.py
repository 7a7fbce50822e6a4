"""smtpd: read the command line and the configuration, then become the supervisor."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Iterable, List, Optional

from smtpd_core import text, version
from smtpd_core.daemon import loading, notify, privileges, unit
from smtpd_core.daemon.log import DescriptorSink, Log, SyslogSink
from smtpd_core.daemon.options import OptionError, Options, parse_options, usage_lines
from smtpd_core.errors import SmtpdError
from smtpd_core.queue.layout import DEFAULT_SPOOL

if TYPE_CHECKING:
    from smtpd_core.config.model import Config
    from smtpd_core.daemon.setting import Setting
    from smtpd_core.queue.codec import Key

PROGRAM = f"smtpctl {version.VERSION}"
MAX_DISPATCHERS = 4  # one per core, and no more unless told: more share nothing and gain little
RUNTIME_DIRECTORIES = ("/run", "/var/run")
EXIT_OK = 0
EXIT_FAILURE = 1


class StartError(SmtpdError):
    """A start that cannot be made; its text is printed as it stands."""


def run(argv: List[str]) -> int:
    """Run smtpd with the arguments after its name; return the exit status."""
    try:
        options = parse_options(argv)
    except OptionError as error:
        said = [str(error)] if str(error) else []
        _say([*said, *usage_lines(Options(), PROGRAM)])
        return EXIT_FAILURE
    _say(options.warnings)
    if options.help:
        _say(usage_lines(options, PROGRAM))
        return EXIT_FAILURE
    path = options.config or loading.default_path()
    try:
        if options.print_unit:
            DescriptorSink(1).write(6, unit.systemd_unit(_program(), options.config or "").rstrip())
            return EXIT_OK
        config, warnings = loading.load(path, options.macros)
        _say(warnings)
        if options.check_only:
            _say(loading.warn_unsupported(config))
            _say(["configuration OK"])
            return EXIT_OK
        loading.check_start(config)
        return _start(options, config, path)
    except loading.LoadError as error:
        _say(error.lines)
    except SmtpdError as error:
        _say([f"smtpd: {error}"])
    return EXIT_FAILURE


def _start(options: Options, config: Config, path: str) -> int:
    """Prepare what the terminal is to hear of, then serve until the end."""
    from smtpd_core.daemon import machine, roles, sockets
    from smtpd_core.daemon.setting import Setting
    from smtpd_core.daemon.supervisor import Supervisor

    privileged = os.geteuid() == 0
    if privileged:
        daemon, queue = privileges.find_identities(options.users)
    else:
        daemon = queue = privileges.current_identity()
    descriptors = privileges.raise_descriptor_limit()
    spool = os.path.abspath(options.spool or _default_spool(privileged=privileged))
    lock = roles.prepare_spool(spool, queue, privileged=privileged)
    key = _queue_key(config)
    listening = sockets.Sockets(notify.take_sockets(os.environ, os.getpid()))
    listening.bind(config)
    privileges.preload()
    if not options.foreground:
        _detach()
    log = _open_log(options)
    setting = Setting(
        log,
        machine.server_name(path),
        spool,
        os.path.abspath(path),
        options.macros,
        daemon,
        queue,
        privileged,
        key,
        paused=frozenset(options.paused),
    )
    log("info", f"info: {PROGRAM} starting")
    supervisor = Supervisor(
        config, roles.DaemonRoles(setting, descriptors), listening, log, setting.host()
    )
    supervisor.workers = options.workers or min(os.cpu_count() or 1, MAX_DISPATCHERS)
    pid_file = _pid_file(privileged=privileged)
    supervisor.on_ready = lambda: _ready(setting, pid_file)
    supervisor.on_reload = _tell_reload
    try:
        status = supervisor.run()
    finally:
        notify.notify("STOPPING=1", os.environ)
        if pid_file is not None:
            notify.remove_file(pid_file)
        os.close(lock)
    log("info", "Exiting")
    return status


def _ready(setting: Setting, pid_file: Optional[str]) -> None:
    setting.log("info", f"info: {PROGRAM} ready")
    if pid_file is not None:
        try:
            notify.write_pid_file(pid_file, os.getpid())
        except OSError as error:
            setting.log("warn", f"warn: {pid_file}: {error.strerror}")
    notify.notify(f"READY=1\nMAINPID={os.getpid()}", os.environ)


def _tell_reload(begins: bool) -> None:
    import time

    state = "RELOADING=1" if begins else "READY=1"
    microseconds = time.monotonic_ns() // 1000
    notify.notify(f"{state}\nMONOTONIC_USEC={microseconds}", os.environ)


def _pid_file(*, privileged: bool) -> Optional[str]:
    """Give where the PID file goes; without root nobody looks for one."""
    if not privileged:
        return None
    return next(
        (f"{path}/smtpd.pid" for path in RUNTIME_DIRECTORIES if os.access(path, os.W_OK)), None
    )


def _default_spool(*, privileged: bool) -> str:
    if privileged:
        return DEFAULT_SPOOL
    state = os.environ.get("XDG_STATE_HOME", "")
    home = os.environ.get("HOME", "")
    if state.startswith("/"):
        return f"{state}/smtpd/spool"
    if home.startswith("/") and os.access(home, os.W_OK):
        return f"{home}/.local/state/smtpd/spool"
    raise StartError("no directory for the spool: give one with --spool")


def _queue_key(config: Config) -> Optional[Key]:
    """Give the key of an encrypted queue, asking for it if need be. Raises SmtpdError."""
    if not config.queue.encryption:
        return None
    from smtpd_core.queue.codec import parse_key

    said = config.queue.key
    if said in ("stdin", "-"):
        return parse_key(sys.stdin.buffer.readline(4096))
    if said is not None:
        return parse_key(text.encode(said))
    if not sys.stdin.isatty():
        raise StartError("queue encryption: no key, and no terminal to ask for it")
    import getpass

    return parse_key(text.encode(getpass.getpass("queue key: ")))


def _open_log(options: Options) -> Log:
    if options.to_stderr:
        return Log(DescriptorSink(2), verbose=options.verbose)
    sink = SyslogSink()
    if not sink.connected and options.foreground:  # as in a container
        return Log(DescriptorSink(2), verbose=options.verbose)
    return Log(sink, verbose=options.verbose)


def _detach() -> None:
    """Go on in the background: no terminal, no directory held."""
    for _ in range(2):  # the second makes sure that no terminal is ever acquired
        if os.fork() != 0:
            os._exit(EXIT_OK)
        if _ == 0:
            os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)
    if null > 2:
        os.close(null)


def _program() -> str:
    """Give the path of this program for a command line of others."""
    return os.path.abspath(sys.argv[0])


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        DescriptorSink(2).write(6, line)
