"""CURVE keys: who may listen to a stream that leaves the computer, and what nobody else can read.

Owns the folder of keys on disk and how a socket is given them. Opens no socket and authenticates
nobody: libzmq does.

A folder made by `make_keys` is the publisher's::

    keys/
    ├── publisher.key, publisher.key_secret
    ├── authorized/NAME.key          a viewer that may listen
    ├── this-computer/               the viewer that `--view` opens
    └── NAME/                        to be carried to that viewer's computer, then deleted here
        ├── viewer.key_secret
        └── publisher.key

References
----------
CurveZMQ, https://rfc.zeromq.org/spec/26/; ZAP, https://rfc.zeromq.org/spec/27/. The files are ZPL
certificates as pyzmq writes them.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import zmq
from zmq.auth import create_certificates, load_certificate
from zmq.auth.thread import ThreadAuthenticator
from zmq.utils import z85

from livesr.base.errors import ConfigError

_NAME = re.compile(r"[\w][\w.-]{0,62}")
LOCAL = "this-computer"
_MAX_BYTES, _KEY_BYTES = 1 << 16, 32
_RESERVED = {"publisher", "authorized", LOCAL}


@dataclass(frozen=True, slots=True, repr=False)
class PublisherKeys:
    """What a publisher needs: its own pair, and the folder of public keys that may listen."""

    public: bytes
    secret: bytes
    authorized: Path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a publisher's folder.

        Raises
        ------
        ConfigError
            If it is none.
        """
        public, secret = _pair(folder / "publisher.key_secret", f"livesr keys {folder}")
        return cls(public, secret, folder / "authorized")

    def protect(self, socket: zmq.Socket[Any]) -> ThreadAuthenticator:
        """Encrypt `socket`, before it binds; stop what is returned after the socket is closed.

        A viewer whose key is not in the folder is refused by libzmq before it has sent a byte to
        this program.
        """
        authenticator = ThreadAuthenticator(socket.context)
        authenticator.start()
        authenticator.configure_curve(domain="*", location=str(self.authorized))
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.curve_server = True
        return authenticator


@dataclass(frozen=True, slots=True, repr=False)
class ViewerKeys:
    """What a viewer needs: its own pair, and the public key of the publisher that it trusts."""

    public: bytes
    secret: bytes
    publisher: bytes

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a viewer's folder.

        Raises
        ------
        ConfigError
            If it is none.
        """
        public, secret = _pair(
            folder / "viewer.key_secret", "livesr keys FOLDER --viewer NAME at the rig"
        )
        return cls(public, secret, _read(folder / "publisher.key")[0])

    def protect(self, socket: zmq.Socket[Any]) -> None:
        """Encrypt `socket`, before it connects."""
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.curve_serverkey = self.publisher


def make_keys(folder: Path, viewers: Iterable[str] = ()) -> list[Path]:
    """Make a publisher's keys where there are none, and those of `viewers`.

    Return the folders to carry away.

    Raises
    ------
    ConfigError
        If a name is no plain name, or that viewer has keys already.
    """
    names = list(viewers)
    for name in names:
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ConfigError(
                f"{name!r} cannot name a viewer: expected letters, digits, '_', '-' and '.'."
            )
        if (folder / "authorized" / f"{name}.key").exists():
            raise ConfigError(
                f"Viewer {name!r} has keys already: delete its .key in {folder / 'authorized'} to"
                " renew them."
            )
    folder.mkdir(
        mode=0o700, parents=True, exist_ok=True
    )  # a secret is written before its own rights can be set
    (folder / "authorized").mkdir(exist_ok=True)
    if not (folder / "publisher.key_secret").exists():
        _create(folder, "publisher")
        _make_viewer(folder, LOCAL)
    return [_make_viewer(folder, name) for name in names]


def _make_viewer(folder: Path, name: str) -> Path:
    target = folder / name
    target.mkdir(mode=0o700, exist_ok=True)
    _create(target, "viewer")
    os.replace(target / "viewer.key", folder / "authorized" / f"{name}.key")
    shutil.copy(folder / "publisher.key", target)
    return target


def _create(folder: Path, name: str) -> None:
    _, secret = create_certificates(folder, name)
    os.chmod(secret, 0o600)  # on Windows the folder's own rights decide


def _pair(path: Path, hint: str) -> tuple[bytes, bytes]:
    public, secret = _read(path, hint)
    if secret is None:
        raise ConfigError(f"{path} holds no secret key. Make one with {hint}.")
    return public, secret


def _read(path: Path, hint: str = "livesr keys") -> tuple[bytes, bytes | None]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            raise ValueError(path)
        public, secret = load_certificate(path)
        if not all(key is None or len(z85.decode(key)) == _KEY_BYTES for key in (public, secret)):
            raise ValueError(path)
    except (OSError, ValueError, LookupError, struct.error) as e:
        raise ConfigError(f"{path} is missing or no key file. Make one with {hint}.") from e
    return public, secret
