"""The log lines of a session, as programs that read them expect them."""

from __future__ import annotations

from smtpd_core.listener import lines

S = 0x1B2C3D4E5F60718


def test_lines_are_those_of_the_original() -> None:
    start = "01b2c3d4e5f60718 smtp "
    assert lines.connected(S, "192.0.2.1", "a.example") == (
        start + "connected address=192.0.2.1 host=a.example"
    )
    assert lines.tls(S, "TLSv1.3:X:256") == start + "tls ciphers=TLSv1.3:X:256"
    assert lines.certificate(S, "SHA256:00", verified=True) == (
        start + 'cert-check result="verified" fingerprint="SHA256:00"'
    )
    assert lines.certificate(S, "SHA256:00", verified=False) == (
        start + 'cert-check result="unchecked" fingerprint="SHA256:00"'
    )
    assert lines.authentication(S, "joe", "ok", "192.0.2.1") == (
        start + "authentication user=joe result=ok"
    )
    assert lines.message(S, 0xA1, 512, 2, extended=True) == (
        start + "message msgid=000000a1 size=512 nrcpt=2 proto=ESMTP"
    )
    assert lines.message(S, 0xA1, 512, 2, extended=False).endswith(" proto=SMTP")
    assert lines.envelope(S, 0xA100000001, "a@b", "c@d") == (
        start + "envelope evpid=000000a100000001 from=<a@b> to=<c@d>"
    )
    assert lines.disconnected(S, "quit") == start + "disconnected reason=quit"
    assert lines.proxied(S, "192.0.2.1") == start + "event=proxy address=192.0.2.1"


def test_failures_name_the_client() -> None:
    assert lines.failed_command(S, "RCPT TO:<x@y>", "550 Invalid recipient: <x@y>", "[::1]") == (
        '01b2c3d4e5f60718 smtp failed-command command="RCPT TO:<x@y>"'
        ' result="550 Invalid recipient: <x@y>" address=[::1]'
    )
    assert lines.bad_input(S, "500 5.0.0 Line too long", "192.0.2.1") == (
        '01b2c3d4e5f60718 smtp bad-input result="500 5.0.0 Line too long" address=192.0.2.1'
    )
    assert lines.authentication(S, "joe", "permfail", "192.0.2.1").endswith(
        "authentication user=joe result=permfail address=192.0.2.1"
    )
    assert lines.disconnected(S, "timeout", "192.0.2.1").endswith(
        "disconnected reason=timeout address=192.0.2.1"
    )
    assert lines.disconnected(S, "io-error: Connection reset by peer", "192.0.2.1").endswith(
        'disconnected reason="io-error: Connection reset by peer" address=192.0.2.1'
    )


def test_what_a_client_says_stays_within_its_quotes() -> None:
    line = lines.failed_command(S, 'x" address=198.51.100.1 "\r\n\x1b[2J', "500 no", "192.0.2.1")
    assert '"x\\" address=198.51.100.1 \\"\\r\\n\\x1b[2J"' in line
    assert line.endswith(" address=192.0.2.1")
    assert line.isprintable()


def test_what_a_client_says_is_cut() -> None:
    assert len(lines.failed_command(S, "x" * 2000, "500 no", "192.0.2.1")) < 700


def test_a_user_name_is_one_word() -> None:
    line = lines.authentication(S, "joe result=ok", "permfail", "192.0.2.1")
    assert "user=joe\\sresult=ok result=permfail" in line


def test_the_process_behind_a_local_session_is_named() -> None:
    assert lines.connected(S, "local", "mx.example", 1000).endswith(
        "connected address=local host=mx.example uid=1000"
    )


def test_an_envelope_without_an_id() -> None:
    assert lines.envelope(S, None, "", "c@d").endswith(" smtp envelope from=<> to=<c@d>")
