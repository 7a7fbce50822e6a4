"""Certificates for tests: an authority, and two hosts it vouches for, until the year 2125.

Made with openssl: P-256 keys; MX_EXAMPLE is good for mx.example and 127.0.0.9, OTHER_EXAMPLE for
other.example and 127.0.0.9. The keys protect nothing.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAT+gAwIBAgIUCLPGDLnGWeYg5EBXsRS3iFsaXyAwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOVGVzdCBhdXRob3JpdHkwIBcNMjYxMTIyMTcxNTEzWhgPMjEy
NjEwMjkxNzE1MTNaMBkxFzAVBgNVBAMMDlRlc3QgYXV0aG9yaXR5MFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEvzkeQHnD2r3MN92v0WjF6WGrnuOlofHeYLEBf1r+
mHdd8wyMOgk6oaBPGKxq73nUPHV9X3Lu7Wc60/aEXQVmF6NjMGEwHQYDVR0OBBYE
FGJ2gAjN/GBZcl/MQEVv4WMv0mu2MB8GA1UdIwQYMBaAFGJ2gAjN/GBZcl/MQEVv
4WMv0mu2MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgEGMAoGCCqGSM49
BAMCA0kAMEYCIQDUxkeDgf7DLk0SUb2wzyL6S52EPgwO5R/sDhXYXl3PHwIhAIT0
bS7JeF7aNHkYW7Z+MqjbfgZ0p90S2xSv1jqJJibG
-----END CERTIFICATE-----
"""

MX_EXAMPLE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg2qqHJUTYorj1iM08
dtY9CNkbrdgqMa5fNZM4lCkILtOhRANCAARB0skGmW+i2900k7py+gwUAOhVTiEa
z0Z/jnQ8pPLPfcxGzSyMsipn7lU6G6z5/sr/0YP1IiYgzrTq7/Yws8Xu
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIByTCCAXCgAwIBAgIUKv98sSaJTygv5PQ/zzP5xEqx/jIwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOVGVzdCBhdXRob3JpdHkwIBcNMjYxMTIyMTcxNTEzWhgPMjEy
NjEwMjkxNzE1MTNaMBUxEzARBgNVBAMMCm14LmV4YW1wbGUwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAARB0skGmW+i2900k7py+gwUAOhVTiEaz0Z/jnQ8pPLPfcxG
zSyMsipn7lU6G6z5/sr/0YP1IiYgzrTq7/Yws8Xuo4GXMIGUMAkGA1UdEwQCMAAw
CwYDVR0PBAQDAgeAMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcDAjAdBgNV
HQ4EFgQUsqPFJYIqZ9dWO7AxA4yleHTS0PswHwYDVR0jBBgwFoAUYnaACM38YFly
X8xARW/hYy/Sa7YwGwYDVR0RBBQwEoIKbXguZXhhbXBsZYcEfwAACTAKBggqhkjO
PQQDAgNHADBEAiAISZnMmoohvoNfQf9cMaaKMewr/PzCbw8F4wqaL1mAuAIgWMYH
nQ8GJT1of7kGUUR+CJ/hKdrdZjUgPllDVfosag4=
-----END CERTIFICATE-----
"""

OTHER_EXAMPLE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUxXTIJx/pMqaz7RT
3a9R0oWQVM3LdfRVYQ8dgEM5IHuhRANCAASBT+YWMs5/z48XdBe+gRSF4qbfJh0N
sx8eso/kOlsORXNq439ljlhYZFSH1//vqT93Z2SNdu+yq3Df/dXIFIqm
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBzzCCAXagAwIBAgIUKv98sSaJTygv5PQ/zzP5xEqx/jMwCgYIKoZIzj0EAwIw
GTEXMBUGA1UEAwwOVGVzdCBhdXRob3JpdHkwIBcNMjYxMTIyMTcxNTEzWhgPMjEy
NjEwMjkxNzE1MTNaMBgxFjAUBgNVBAMMDW90aGVyLmV4YW1wbGUwWTATBgcqhkjO
PQIBBggqhkjOPQMBBwNCAASBT+YWMs5/z48XdBe+gRSF4qbfJh0Nsx8eso/kOlsO
RXNq439ljlhYZFSH1//vqT93Z2SNdu+yq3Df/dXIFIqmo4GaMIGXMAkGA1UdEwQC
MAAwCwYDVR0PBAQDAgeAMB0GA1UdJQQWMBQGCCsGAQUFBwMBBggrBgEFBQcDAjAd
BgNVHQ4EFgQUifhdxVtPbc13eUWRuqvnHNRowFkwHwYDVR0jBBgwFoAUYnaACM38
YFlyX8xARW/hYy/Sa7YwHgYDVR0RBBcwFYINb3RoZXIuZXhhbXBsZYcEfwAACTAK
BggqhkjOPQQDAgNHADBEAiAgB9ktm4Lpg0emzqVEnECxugnXxM6cNYlJjLDQ/ksb
bQIgdM0RmGTDOXCXWMUwty6j0Nvlp2yQ8eW5naKmg8xFXvU=
-----END CERTIFICATE-----
"""


def server_context(directory: Path, certificate: str = MX_EXAMPLE) -> ssl.SSLContext:
    """Make the context of a server; its certificate is written into a directory of the test."""
    file = directory / "server.pem"
    file.write_text(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(file)
    return context


def client_context(*, verify: bool = True) -> ssl.SSLContext:
    """Make the context of a client that trusts the authority, or everybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if verify:
        context.load_verify_locations(cadata=AUTHORITY)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
