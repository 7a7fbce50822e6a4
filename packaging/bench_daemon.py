"""Measure the daemon against Postfix, aiosmtpd and OpenSMTPD, in one run, as ratios.

Usage: bench_daemon.py [accept|relay|load ...] [--archive PATH] [--runs N] [--envelopes N]

All servers run at once, idle but for the one whose turn it is; turns alternate, and what counts is
the median of the ratios. Mail is accepted and kept: nothing is delivered meanwhile, but in
`relay`. As root, everything happens in namespaces of this run alone: packages are unpacked to a
temporary place and laid over /usr and /etc there, and the network is a loopback. Without
root, ours is measured alone, by its memory and loading time.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple, Sequence

from bench import make_spool  # type: ignore[import-not-found]  # beside this script

IN_NAMESPACE = "SMTPD_BENCH_NAMESPACE"
REAL = "/usr/sbin/smtpd"
REAL_SPOOL = "/var/spool/smtpd"
PACKAGES = ("postfix",)
BENCH_PACKAGES = Path("build/bench-packages").absolute()
BENCH_PYTHON = Path("build/bench-python").absolute()
AIOSMTPD = ("aiosmtpd==1.4.6", "atpublic==5.1", "attrs==26.1.0")
LENGTH = 2048
SINK_PORT = 2600
START_SECONDS = 20.0
RELAY_SECONDS = 120.0
# sessions, messages, whether connections are kept. Kept ones take 90 messages at most: the
# servers' limit is 100.
LOADS = (
    (1, 90, True),
    (1, 300, False),
    (10, 900, True),
    (10, 900, False),
    (50, 3000, True),
    (50, 1500, False),
)
WANTED = {"postfix": 2.0, "aiosmtpd": 2.0, "OpenSMTPD": 1.0}

HANDLER = """
import asyncio, os, sys
from aiosmtpd.smtp import SMTP
directory, port, counter = sys.argv[1], int(sys.argv[2]), iter(range(1 << 40))
class Handler:
    async def handle_DATA(self, server, session, envelope):
        path = os.path.join(directory, str(next(counter)))
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(handle, envelope.content)
        os.fsync(handle)
        os.close(handle)
        return "250 OK"
async def main():
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(Handler(), hostname="bench", ident="bench"), "127.0.0.1", port, backlog=512)
    await server.serve_forever()
asyncio.run(main())
"""

POSTFIX = """
compatibility_level = 3.6
queue_directory = {spool}
data_directory = {data}
maillog_file = {data}/log
maillog_file_prefixes = {data}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = bench.example
mydestination =
local_recipient_maps =
alias_maps =
mynetworks = 127.0.0.0/8
relayhost = {relayhost}
smtpd_client_restrictions = {restriction}
smtpd_client_connection_count_limit = 0
smtp_tls_security_level = none
smtpd_tls_security_level = none
"""


class Server(NamedTuple):
    """A server that runs: where it listens, and how it is stopped."""

    name: str
    port: int
    processes: Sequence[subprocess.Popen[bytes]]


class Place(NamedTuple):
    """Where this run keeps everything."""

    directory: Path
    archive: str


# ---- preparing -------------------------------------------------------------------------------


def fetch() -> None:
    """Bring what is compared with to directories below build, while there is a network."""
    BENCH_PACKAGES.mkdir(parents=True, exist_ok=True)
    if not list(BENCH_PACKAGES.glob("*.deb")):
        command = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", *PACKAGES]
        subprocess.run(command, cwd=BENCH_PACKAGES, check=True, stdout=subprocess.DEVNULL)
    if not (BENCH_PYTHON / "aiosmtpd").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-input"]
        subprocess.run([*command, "--target", str(BENCH_PYTHON), *AIOSMTPD], check=True)


def unpack(directory: Path) -> Path:
    """Lay the trees of the packages out in one directory."""
    tree = directory / "tree"
    tree.mkdir()
    for package in BENCH_PACKAGES.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(package), str(tree)], check=True)
    return tree


def overlay(tree: Path, place: str) -> None:
    """Show what was unpacked in a place of the system, in this namespace."""
    lower = f"lowerdir={tree}{place}:{place}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", lower, place], check=True)


def prepare(directory: Path) -> None:
    """Make this namespace a machine on which Postfix is installed."""
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    tree = unpack(directory)
    for name, line in (
        ("passwd", "postfix:x:64001:64001::/nonexistent:/usr/sbin/nologin\n"),
        ("group", "postfix:x:64001:\npostdrop:x:64002:\n"),
    ):
        (tree / "etc" / name).write_text(Path("/etc", name).read_text() + line)
    shutil.copy(tree / "usr/share/postfix/master.cf.dist", tree / "etc/postfix/master.cf")
    (tree / "etc/postfix/main.cf").write_text("compatibility_level = 3.6\n")
    overlay(tree, "/usr")
    overlay(tree, "/etc")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    directory.chmod(0o755)


def start(name: str, port: int, command: list[str], place: Place, **options: object) -> Server:
    """Start a server and wait until it greets."""
    log = (place.directory / f"{name}-{port}.log").open("wb")
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        **options,  # type: ignore[call-overload]
    )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and child.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                if client.recv(512).startswith(b"220"):
                    return Server(name, port, [child])
        except OSError:
            time.sleep(0.05)
    log.close()
    sys.exit(f"{name} does not start:\n{Path(log.name).read_text(errors='replace')}")


def stop(server: Server) -> None:
    """Stop a server, and wait for it."""
    for process in server.processes:
        process.terminate()
    for process in server.processes:
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def start_ours(place: Place, port: int, relay: bool, spool: str = "spool-ours") -> Server:
    """Start our daemon."""
    conf = place.directory / f"ours-{port}.conf"
    conf.write_text(smtpd_conf(port, relay))
    command = [place.archive, "smtpd", "-d", "-v", "-f", str(conf)]
    command += ["--spool", str(place.directory / spool)]
    command += ["--socket", str(place.directory / f"ours-{port}.sock")]
    return start("ours", port, command + paused(relay), place)


def start_real(place: Place, port: int, relay: bool) -> Server:
    """Start the real OpenSMTPD, on a spool of its own."""
    spool = place.directory / f"spool-real-{port}"
    spool.mkdir(mode=0o711)
    subprocess.run(["mount", "--bind", str(spool), REAL_SPOOL], check=True)
    conf = place.directory / f"real-{port}.conf"
    conf.write_text(smtpd_conf(port, relay))
    return start("OpenSMTPD", port, [REAL, "-d", "-f", str(conf), *paused(relay)], place)


def smtpd_conf(port: int, relay: bool) -> str:
    """Give a configuration for ours and theirs."""
    host = f"smtp://[127.0.0.1]:{SINK_PORT}"
    return (
        f"listen on 127.0.0.1 port {port}\n"
        f'action "out" relay host {host}\n'
        'match from any for any action "out"\n'
    ) + ("" if relay else "# nothing leaves: relaying is paused\n")


def paused(relay: bool) -> list[str]:
    """Give the options with which mail stays in the queue."""
    return [] if relay else ["-P", "mta", "-P", "mda"]


def start_postfix(place: Place, port: int, relay: bool) -> Server:
    """Start Postfix, with a configuration and a queue of its own."""
    name = f"postfix-{port}"
    conf, spool, data = (place.directory / f"{name}-{each}" for each in ("conf", "spool", "data"))
    for each in (conf, spool, data):
        each.mkdir()
        each.chmod(0o755)
    shutil.chown(data, 64001, 64001)
    (conf / "main.cf").write_text(
        POSTFIX.format(
            spool=spool,
            data=data,
            relayhost=f"[127.0.0.1]:{SINK_PORT}",
            restriction="" if relay else "static:hold",
        )
    )
    lines = Path("/etc/postfix/master.cf").read_text().splitlines()
    lines = [
        f"127.0.0.1:{port} inet n - n - - smtpd" if each.startswith("smtp      inet") else each
        for each in lines
    ]
    # no chroot: its files would have to be copied there
    table = "\n".join(lines)
    table = re.sub(r"^(\S+\s+(?:unix|inet)\s+\S\s+\S\s+)y", r"\1n", table, flags=re.MULTILINE)
    (conf / "master.cf").write_text(table + "\n")
    subprocess.run(["postfix", "-c", str(conf), "check"], check=False, stderr=subprocess.DEVNULL)
    master = "/usr/lib/postfix/sbin/master"
    return start("postfix", port, [master, "-d", "-c", str(conf)], place)


def start_aiosmtpd(place: Place, port: int) -> Server:
    """Start aiosmtpd with a handler that writes one file and flushes it."""
    directory = place.directory / "aiosmtpd"
    directory.mkdir()
    command = [sys.executable, "-c", HANDLER, str(directory), str(port)]
    return start(
        "aiosmtpd", port, command, place, env={**os.environ, "PYTHONPATH": str(BENCH_PYTHON)}
    )


# ---- measuring -------------------------------------------------------------------------------


def offer(port: int, sessions: int, messages: int, keep: bool) -> float:
    """Send messages, and give how many were taken in a second."""
    command = ["smtp-source", "-s", str(sessions), "-m", str(messages), "-l", str(LENGTH)]
    command += ["-f", "from@example.org", "-t", "to@example.net"]
    if keep:
        command.append("-d")
    began = time.monotonic()
    subprocess.run([*command, f"inet:127.0.0.1:{port}"], check=True, timeout=300)
    return messages / (time.monotonic() - began)


def offer_load(load: tuple[int, int, bool], server: Server) -> float:
    """Offer one of LOADS, cut down where the server takes seconds for each connection."""
    sessions, messages, keep = load
    if server.name == "OpenSMTPD" and not keep and sessions > 1:
        messages = 2 * sessions  # its backlog is short: clients wait a second and more
    return offer(server.port, sessions, messages, keep)


def in_turns(
    servers: Sequence[Server], runs: int, measure: Callable[[Server], float]
) -> dict[str, list[float]]:
    """Measure servers in turns, after one turn that does not count."""
    rates: dict[str, list[float]] = {server.name: [] for server in servers}
    for turn in range(runs + 1):
        for server in servers:
            rate = measure(server)
            if turn:
                rates[server.name].append(rate)
    return rates


def ratio(rates: dict[str, list[float]], name: str) -> float:
    """Give the median of ours over theirs, turn by turn."""
    return statistics.median(mine / other for mine, other in zip(rates["ours"], rates[name]))


def report(title: str, rates: dict[str, list[float]], wanted: dict[str, float]) -> None:
    """Print the medians of a load, and what ours is to theirs."""
    text = f"  {title:28}"
    for name, found in rates.items():
        text += f"  {name} {statistics.median(found):6.0f}/s"
        if name != "ours":
            text += f" ({ratio(rates, name):.2f}, wanted {wanted[name]:.1f})"
    print(text, flush=True)


def bench_accept(place: Place, runs: int) -> None:
    """Take mail in, and keep it."""
    print(f"accept: {LENGTH} octets a message, {os.cpu_count()} processors; ratios are ours/theirs")
    servers = [start_ours(place, 2501, relay=False), start_postfix(place, 2502, relay=False)]
    servers.append(start_aiosmtpd(place, 2503))
    if os.path.exists(REAL):
        servers.append(start_real(place, 2504, relay=False))
    try:
        for load in LOADS:
            sessions, _, keep = load
            title = f"{sessions} sessions, {'kept' if keep else 'new each time'}"
            rates = in_turns(servers, runs, partial(offer_load, load))
            report(title, rates, WANTED)
    finally:
        for server in servers:
            stop(server)


class Sink:
    """smtp-sink, and how many messages it has had."""

    def __init__(self) -> None:
        """Start it."""
        command = ["smtp-sink", "-c", "-u", "nobody", f"inet:127.0.0.1:{SINK_PORT}", "512"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._seen = b""
        self.count = 0

    def wait(self, count: int) -> None:
        """Return when it has had so many messages."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + RELAY_SECONDS
        while self.count < count:
            self._seen = self._seen[-64:] + os.read(self._process.stdout.fileno(), 1 << 16)
            found = re.findall(rb"mesg=(\d+)\s", self._seen)
            if found:
                self.count = int(found[-1])
            if time.monotonic() > deadline:
                sys.exit(f"smtp-sink had {self.count} messages of {count}")

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait()


def bench_relay(place: Place, runs: int, messages: int = 900) -> None:
    """Take mail in and pass it on at once: from the first octet to the last message relayed."""
    print(f"relay to smtp-sink: {messages} messages, 10 sessions in")
    sink = Sink()
    servers = [start_ours(place, 2511, relay=True, spool="spool-relay")]
    servers.append(start_postfix(place, 2512, relay=True))
    if os.path.exists(REAL):
        servers.append(start_real(place, 2513, relay=True))

    def measure(server: Server) -> float:
        before = sink.count
        began = time.monotonic()
        offer(server.port, 10, messages, keep=True)
        sink.wait(before + messages)
        return messages / (time.monotonic() - began)

    try:
        report("in and out", in_turns(servers, runs, measure), {"postfix": 1.5, "OpenSMTPD": 1.0})
    finally:
        for server in servers:
            stop(server)
        sink.stop()


def resident(pid: int) -> int:
    """Give the resident octets of a process and all its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        fields = dict(re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE))
        if fields.get("PPid") == str(pid):
            total += resident(int(fields["Pid"]))
        elif fields.get("Pid") == str(pid):
            total += int(fields.get("VmRSS", 0)) << 10
    return total


def bench_load(place: Place, envelopes: int) -> None:
    """Load a large spool while serving; what an envelope costs is over an empty spool."""
    make_spool(place.directory / "spool-large", envelopes)
    (place.directory / "spool-large").chmod(0o711)
    for name in ("queue", "incoming"):
        owned = str(place.directory / "spool-large" / name)
        subprocess.run(["chown", "-R", "opensmtpq", owned], check=False)
    os.sync()
    sizes = {}
    for port, spool in ((2521, "spool-empty"), (2522, "spool-large")):
        began = time.monotonic()
        server = start_ours(place, port, relay=False, spool=spool)
        ready = time.monotonic() - began
        process = server.processes[0]
        log = place.directory / f"ours-{port}.log"
        while b"envelopes loaded" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > began + RELAY_SECONDS:
                sys.exit(log.read_text(errors="replace"))
            time.sleep(0.02)
        loaded = time.monotonic() - began
        time.sleep(1.0)  # what it frees afterwards counts for it
        sizes[spool] = resident(process.pid)
        stop(server)
    each = (sizes["spool-large"] - sizes["spool-empty"]) / envelopes
    print(
        f"load: {envelopes} envelopes: greets after {ready:.2f} s, all loaded after {loaded:.2f} s"
        f" (wanted: at most 10); {each:.0f} octets an envelope (wanted: at most 600)"
    )


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="accept, relay, load; all when none is named")
    parser.add_argument("--archive", default="smtpctl.pyz")
    parser.add_argument("--envelopes", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    what = given.what or ["accept", "relay", "load"]
    if os.geteuid() == 0 and not os.environ.get(IN_NAMESPACE):
        fetch()
        os.environ[IN_NAMESPACE] = "1"
        command = ["unshare", "-mnpf", "--mount-proc", "--kill-child", sys.executable, *sys.argv]
        os.execvp("unshare", command)  # noqa: S606
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="smtpd-bench-") as directory:
        place = Place(Path(directory), os.path.abspath(given.archive))
        if os.environ.get(IN_NAMESPACE):
            prepare(Path(directory))
        elif what != ["load"]:
            sys.exit("accept and relay need namespaces: run this as root")
        if "accept" in what:
            bench_accept(place, given.runs)
        if "relay" in what:
            bench_relay(place, given.runs)
        if "load" in what:
            bench_load(place, given.envelopes)


if __name__ == "__main__":
    main()
