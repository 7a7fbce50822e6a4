"""Ask for secrets at a terminal, without echo."""

from __future__ import annotations

import os

from smtpd_core.errors import AccessError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Optional

_MAX_ANSWER = 4096  # octets typed at a prompt: what a terminal's line holds
_STDERR = 2
_STTYS = ("/usr/bin/stty", "/bin/stty")


class _InterruptedError(Exception):
    """A signal came while the terminal was silent."""


def ask_secrets(prompts: list[bytes], stdin_fd: int) -> list[bytes]:
    """Ask for each prompt in turn; fewer answers than prompts when input ends.

    The terminal is that of the session, /dev/tty, or else standard input, which must be one then.
    Raises AccessError when it cannot be made silent.
    """
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # not the terminal of this session, or no /dev at all
        return _ask_all(prompts, stdin_fd, _STDERR)
    try:
        return _ask_all(prompts, terminal, terminal)
    finally:
        os.close(terminal)


def _ask_all(prompts: list[bytes], reading: int, writing: int) -> list[bytes]:
    """Ask without echo, and see to signals.

    A signal that would end or stop the process is kept until the terminal echoes again, then
    sent anew; who comes back from a stop is asked from the beginning.
    """
    import signal

    while True:
        caught: list[int] = []
        listening: list[bool] = []

        def catch(
            number: int,
            _frame: object,
            caught: list[int] = caught,
            listening: list[bool] = listening,
        ) -> None:
            caught.append(number)
            if listening:
                listening.clear()
                raise _InterruptedError

        watched = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP)
        handlers = [(each, signal.getsignal(each)) for each in watched]
        handlers = [pair for pair in handlers if pair[1] not in (signal.SIG_IGN, None)]
        try:
            for each, _ in handlers:
                signal.signal(each, catch)
            answers = _ask_silently(prompts, reading, writing, (caught, listening))
        finally:
            for each, handler in handlers:
                signal.signal(each, handler)
        if not caught:
            return answers
        for number in caught:
            os.kill(os.getpid(), number)


def _ask_silently(
    prompts: list[bytes], reading: int, writing: int, signals: tuple[list[int], list[bool]]
) -> list[bytes]:
    caught, listening = signals
    answers: list[bytes] = []
    echo = _Echo(reading)
    try:
        echo.off()
        listening.append(True)  # from here on a signal raises; before, it was only noted
        for prompt in () if caught else prompts:
            answer = _ask(reading, writing, prompt)
            if answer is None:
                break
            answers.append(answer)
    except _InterruptedError:
        pass  # the caller finds it in `caught`
    finally:
        listening.clear()
        echo.restore()
    return answers


def _ask(reading: int, writing: int, prompt: bytes) -> Optional[bytes]:
    """Ask once; None when input ends before anything was typed."""
    _say(writing, prompt)
    try:
        answer = b""
        while not answer.endswith(b"\n") and len(answer) < _MAX_ANSWER:
            octets = _read(reading)
            if not octets:
                return answer or None
            answer += octets
        return answer.partition(b"\n")[0]
    finally:
        _say(writing, b"\n")  # the one that was typed was not shown


def _read(reading: int) -> bytes:
    try:
        return os.read(reading, _MAX_ANSWER)
    except OSError as error:
        raise AccessError(f"terminal: {error.strerror}") from None


def _say(writing: int, octets: bytes) -> None:
    try:
        os.write(writing, octets)
    except OSError:
        pass  # a terminal that went away; reading from it tells


class _Echo:
    """The echo of a terminal: through termios or, where Python lacks it, through stty."""

    __slots__ = ("_before", "_descriptor", "_saved")

    def __init__(self, descriptor: int) -> None:
        """Note how the terminal is set; AccessError when that cannot be done."""
        self._descriptor = descriptor
        self._before: list[Any] = []
        self._saved = ""
        try:
            import termios
        except ImportError:  # python3-minimal
            self._saved = _stty(descriptor, "-g")
            return
        try:
            self._before = termios.tcgetattr(descriptor)
        except termios.error as error:
            raise AccessError(f"terminal: {error.args[-1]}") from None

    def off(self) -> None:
        """Stop the echo, and forget what was typed while it still worked."""
        if self._saved:
            _stty(self._descriptor, "-echo")
            return
        import termios

        silent = list(termios.tcgetattr(self._descriptor))
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(self._descriptor, termios.TCSAFLUSH, silent)

    def restore(self) -> None:
        """Set the terminal as it was."""
        if self._saved:
            try:
                _stty(self._descriptor, self._saved)
            except AccessError:
                pass  # as below
            return
        import termios

        try:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
        except termios.error:
            pass  # the terminal is gone: nothing to set, and the signal that says so goes on


def _stty(descriptor: int, argument: str) -> str:
    """Run stty on a terminal and return what it printed; AccessError when it fails."""
    import subprocess

    for program in _STTYS:
        try:
            done = subprocess.run(  # noqa: S603  a fixed program; a setting that stty itself gave
                [program, argument], stdin=descriptor, stdout=subprocess.PIPE, check=False
            )
        except FileNotFoundError:
            continue
        printed = done.stdout.decode("ascii", "replace").strip()
        if done.returncode == 0 and (printed or argument != "-g"):
            return printed
        break
    raise AccessError("terminal: the echo cannot be switched off")
