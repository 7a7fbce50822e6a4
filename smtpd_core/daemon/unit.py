"""The unit file for systemd, with every protection that the daemon can live with."""

from __future__ import annotations

_UNIT = """\
[Unit]
Description=SMTP server
After=network.target nss-lookup.target
Wants=network.target

[Service]
Type=notify
NotifyAccess=main
ExecStartPre={program} smtpd -n{file}
ExecStart={program} smtpd -F{file}
ExecReload=/bin/kill -HUP $MAINPID
KillMode=mixed
TimeoutStopSec=330
Restart=on-failure
RestartSec=2
LimitNOFILE=65536
RuntimeDirectory=smtpd
RuntimeDirectoryMode=0755
# What deliveries need stays: other users, their homes, the mail spool.
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID CAP_SYS_CHROOT
LockPersonality=yes
MemoryDenyWriteExecute=no
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=full
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=multi-user.target
"""


def systemd_unit(program: str, config: str = "") -> str:
    """Give the unit; config is the path of the configuration when it is not the usual one."""
    file = f" -f {quote(config)}" if config else ""
    return _UNIT.format(program=quote(program), file=file)


def quote(word: str) -> str:
    """Spell a word for a command line of systemd, where `%` and `$` mean something."""
    safe = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return safe if safe and not any(each in safe for each in " \t'\"\\;") else f'"{safe}"'
