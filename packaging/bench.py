"""Measure the archive against the real programs, in one run, as ratios.

Usage: bench.py [queue|start] [--archive PATH] [--envelopes N] [--runs N]

Runs alternate (ours, theirs, ours, theirs, ...), so that a change of the machine's speed meets
both; what counts is the median of the ratios. The real smtpctl reads only /var/spool/smtpd: as
root, the spool made here is mounted over that place, in a mount namespace of this run alone.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

REAL = "/usr/sbin/smtpctl"
REAL_SPOOL = "/var/spool/smtpd"
IN_NAMESPACE = "SMTPCTL_BENCH_NAMESPACE"
SEED = 6821
CTIME = 1_760_000_000


class Run(NamedTuple):
    """What one run of a program cost."""

    wall: float
    cpu: float
    memory_kib: int
    first: float  # seconds to the first octet of output


def envelope(index: int, kind: str, recipient: int) -> str:
    """Make one of a mixed lot of envelopes of format 3."""
    lines = ["version: 3", "dispatcher: outbound"]
    if index % 3 == 0:
        lines.append("tag: local")
    lines += [f"type: {kind}", "smtpname: mx1.example.org", "helo: client.example.net"]
    lines.append("hostname: client.example.net")
    if index % 2:
        lines.append("errorline: 450 4.2.0 <rcpt>: Greylisted, please try again later")
    lines.append(f"sockaddr: {('192.0.2.55', '[2001:db8::7]', 'local')[index % 3]}")
    domain = ("example.org", "example.net", "widgets.example", "supply.example")[index % 4]
    lines += [f"sender: user{index}@example.org", f"rcpt: rcpt{recipient}@{domain}"]
    lines += [f"dest: rcpt{recipient}@{domain}", f"ctime: {CTIME + index}", "last-try: 0"]
    lines += ["last-bounce: 0", f"ttl: {604800 if kind == 'bounce' else 0}", f"retry: {index % 9}"]
    if index % 3 == 2:
        lines.append("flags: authenticated")
    lines.append("dsn-notify: 0")
    if index % 2:
        lines += ["esc-class: 4", "esc-code: 0"]
    lines += {"mda": ["mda-user: bob"], "bounce": ["bounce-type: failed"]}.get(kind, [])
    return "\n".join(lines) + "\n"


def make_spool(spool: Path, envelopes: int) -> None:
    """Lay out a queue of so many envelopes, two per message."""
    chance = random.Random(SEED)  # noqa: S311 - the same spool every time
    body = b"Received: from x (x [192.0.2.1])\n\tby mx1.example.org\nSubject: test\n\nhello\n" * 6
    for name in ("queue", "incoming"):
        (spool / name).mkdir(parents=True)
        (spool / name).chmod(0o700)
    for index in range(envelopes // 2):
        msgid = f"{chance.getrandbits(32):08x}"
        message = spool / "queue" / msgid[:2] / msgid
        message.mkdir(parents=True, exist_ok=True)
        (message / "message").write_bytes(body)
        kind = ("mta", "mda", "mta", "bounce")[index % 4]
        for recipient in range(2):
            evpid = f"{msgid}{chance.getrandbits(32):08x}"
            (message / evpid).write_text(envelope(index, kind, recipient))


def run(command: list[str]) -> Run:
    """Run a command, read all it prints, and account for it and its children."""
    started = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    first = 0.0
    while os.read(child.stdout.fileno(), 1 << 16):
        first = first or time.monotonic() - started
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    child.stdout.close()
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit status {child.returncode}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, first)


def alternate(ours: list[str], theirs: list[str], runs: int) -> tuple[list[Run], list[Run]]:
    """Run two commands in turns, after one run of each that does not count."""
    results: tuple[list[Run], list[Run]] = ([], [])
    for index in range(runs + 1):
        for command, kept in zip((ours, theirs), results):
            result = run(command)
            if index:
                kept.append(result)
    return results


def ratio(ours: list[Run], theirs: list[Run], field: str) -> float:
    """Give the median of the ratios, run by run."""
    found: float = statistics.median(
        getattr(mine, field) / getattr(other, field) for mine, other in zip(ours, theirs)
    )
    return found


def report(name: str, results: list[Run]) -> None:
    """Print the medians of one command."""
    wall, cpu, memory, first = (
        statistics.median(getattr(result, field) for result in results) for field in Run._fields
    )
    print(
        f"  {name:34} wall {wall:7.3f} s   cpu {cpu:7.3f} s"
        f"   memory {memory / 1024:6.1f} MiB   first output {first:6.3f} s"
    )


def bench_queue(archive: str, envelopes: int, runs: int) -> None:
    """List a large queue with both programs."""
    with tempfile.TemporaryDirectory(prefix="smtpctl-bench-") as directory:
        spool = Path(directory) / "spool"
        print(f"show queue: {envelopes} envelopes, format 3, {os.cpu_count()} processors")
        make_spool(spool, envelopes)
        os.sync()  # what is still to be written would be in the way
        ours = [archive, "show", "queue", "--spool", str(spool)]
        if not mount(spool):
            print("  (the real smtpctl is not installed, or this is not root: ours alone)")
            results = [run(ours) for _ in range(runs + 1)][1:]
            report("smtpctl.pyz", results)
            return
        mine, theirs = alternate(ours, [REAL, "show", "queue"], runs)
        subprocess.run(["umount", REAL_SPOOL], check=True)
        report("smtpctl.pyz", mine)
        report("smtpctl of OpenSMTPD", theirs)
        for field, wanted in (("wall", 0.70), ("cpu", 1.3)):
            print(
                f"  ratio {field:5} {ratio(mine, theirs, field):.2f}   (wanted: at most {wanted})"
            )


def mount(spool: Path) -> bool:
    """Show the spool where the real program looks; False when that cannot be."""
    if not os.environ.get(IN_NAMESPACE):
        return False
    Path(REAL_SPOOL).mkdir(parents=True, exist_ok=True)
    mounted = subprocess.run(["mount", "--bind", str(spool), REAL_SPOOL], check=False)
    return mounted.returncode == 0


def bench_start(archive: str, sources: str, runs: int) -> None:
    """Compare a start with that of an empty interpreter."""
    python = "/usr/bin/python3"
    with tempfile.TemporaryDirectory(prefix="smtpctl-bench-") as directory:
        spool = Path(directory)
        for name in ("queue", "incoming"):
            (spool / name).mkdir()
        empty = [python, "-ISB", "-c", "pass"]
        print("start: show queue of an empty spool, against an empty interpreter")
        for name, path, wanted in (("with bytecode", archive, 2.0), ("sources", sources, 4.0)):
            mine, theirs = alternate([path, "show", "queue", "--spool", directory], empty, runs)
            wall = statistics.median(result.wall for result in mine)
            print(
                f"  {name:14} {wall * 1000:6.1f} ms   ratio wall {ratio(mine, theirs, 'wall'):.2f}"
                f"   (wanted: at most {wanted})"
            )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=("all", "queue", "start"), default="all")
    parser.add_argument("--archive", default="smtpctl.pyz")
    parser.add_argument("--sources", default="build/sources.pyz", help="built without bytecode")
    parser.add_argument("--envelopes", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    real = os.path.exists(REAL) and os.geteuid() == 0 and shutil.which("unshare")
    if real and not os.environ.get(IN_NAMESPACE):
        os.environ[IN_NAMESPACE] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable, *sys.argv])  # noqa: S606
    archive = os.path.abspath(given.archive)
    if given.what in ("all", "start"):
        bench_start(archive, os.path.abspath(given.sources), 4 * given.runs)
    if given.what in ("all", "queue"):
        bench_queue(archive, given.envelopes, given.runs)


if __name__ == "__main__":
    main()
