"""What a client needs for TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mindserve import checks
from mindserve.errors import ConfigError
from mindserve.files import MAX_PEM_BYTES, read_file

if TYPE_CHECKING:
    import grpc


@dataclass(frozen=True)
class SSLConfig:
    """Files, in PEM form, for a connection by TLS.

    Args:
        certificate: the client's own certificate, for servers that verify their clients.
        private_key: the key of `certificate`; both or none.
        custom_ca: certificates of the authorities that the server's certificate may come from. None: those that gRPC
            brings along, or that the environment variable ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`` names.
        server_name: the name that the server's certificate must bear. None: the host in the address that the client
            connects to, and "localhost" for a Unix socket.

    Raises:
        ConfigError: an argument of the wrong type, PEM text in place of a path, or one of `certificate` and
            `private_key` without the other.
    """

    certificate: str | None = None
    private_key: str | None = None
    custom_ca: str | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("certificate", "private_key", "custom_ca"):
            if (value := getattr(self, name)) is not None:
                checks.check_pem_path(name, value)
        if self.server_name is not None:
            checks.check_str("server_name", self.server_name)
        if (self.certificate is None) != (self.private_key is None):
            given, missing = (
                ("certificate", "private_key") if self.private_key is None else ("private_key", "certificate")
            )
            raise ConfigError(f"Parameter '{given}' is given without '{missing}': give both, or neither")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files.

        Raises:
            ConfigError: a file is missing or is not what it should be.
        """
        import grpc

        self._check_files()
        return grpc.ssl_channel_credentials(
            root_certificates=_read("custom_ca", self.custom_ca),
            private_key=_read("private_key", self.private_key),
            certificate_chain=_read("certificate", self.certificate),
        )

    def _check_files(self) -> None:
        """Say in words what gRPC would only report as a failed handshake."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Whether a key is strong enough is for the peers to judge, not for this machine's OpenSSL settings.
        context.set_ciphers("ALL:@SECLEVEL=0")
        if self.custom_ca is not None:
            _read("custom_ca", self.custom_ca)
            try:
                context.load_verify_locations(cafile=self.custom_ca)
            except (ssl.SSLError, OSError) as error:
                raise ConfigError(f"load custom_ca from {self.custom_ca} failed: not a PEM certificate") from error
        if self.certificate is not None and self.private_key is not None:
            pem = _read("certificate", self.certificate) or b""
            if b"-----BEGIN CERTIFICATE-----" not in pem:
                raise ConfigError(f"load certificate from {self.certificate} failed: not a PEM certificate")
            _read("private_key", self.private_key)
            try:
                context.load_cert_chain(self.certificate, self.private_key, password=_refuse_encrypted)
            except ssl.SSLError as error:
                if error.reason == "KEY_VALUES_MISMATCH":
                    reason = f"it is not the key of the certificate in {self.certificate}"
                else:
                    reason = f"not a PEM private key, or {self.certificate} not its certificate ({error.reason})"
                raise ConfigError(f"load private_key from {self.private_key} failed: {reason}") from error
            except _EncryptedKey:
                raise ConfigError(
                    f"load private_key from {self.private_key} failed: the key is encrypted, give it unencrypted"
                ) from None


class _EncryptedKey(Exception):
    pass


def _refuse_encrypted() -> str:
    raise _EncryptedKey


def _read(name: str, path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return read_file(path, MAX_PEM_BYTES)[0]
    except OSError as error:
        raise ConfigError(f"load {name} from {path} failed: {error.strerror}") from error
