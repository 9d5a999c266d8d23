"""With this folder on PYTHONPATH, Python refuses every connection that leaves the machine."""

import socket

LOCAL = ("127.0.0.1", "::1", "localhost", "", None)


def _refused(name: str):
    original = getattr(socket.socket, name)

    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise RuntimeError(f"asked for the network: {address}")
        return original(self, address)

    return connect


def _refused_lookup(host, *arguments, original=socket.getaddrinfo, **more):
    if host not in LOCAL and host != socket.gethostname():
        raise RuntimeError(f"asked for the network: {host}")
    return original(host, *arguments, **more)


socket.socket.connect, socket.socket.connect_ex = _refused("connect"), _refused("connect_ex")
socket.getaddrinfo = _refused_lookup
