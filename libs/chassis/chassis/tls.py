"""Mutual TLS from one folder per identity: `tls.crt`, `tls.key`, `ca.crt`, as cert-manager lays them out."""

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificate, its key and the CA lie. Read anew whenever credentials are made."""

    folder: Path

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate of our CA, and follow a rotated certificate.

        gRPC asks at each handshake; the files are read again only when the certificate's change time moved.
        """
        seen = self._stamp()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal seen
            stamp = self._stamp()
            if stamp == seen:
                return None
            seen = stamp
            return self._server_configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(),
            fetch,  # type: ignore[arg-type] # None means unchanged, which the stubs do not know
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that show our certificate and trust our CA only."""
        return grpc.ssl_channel_credentials(
            root_certificates=self._read("ca.crt"),
            private_key=self._read("tls.key"),
            certificate_chain=self._read("tls.crt"),
        )

    def _server_configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self._read("tls.key"), self._read("tls.crt"))], root_certificates=self._read("ca.crt")
        )

    def _stamp(self) -> int:
        return (self.folder / "tls.crt").stat().st_mtime_ns

    def _read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()
