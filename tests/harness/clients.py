"""Clients that request tokens as fast as they can, to see whether an answer gets lost."""

from __future__ import annotations

import http.client
import json
import threading
from typing import TYPE_CHECKING

import jwt

from harness.waiting import until

if TYPE_CHECKING:
    from harness.tailnet import Route

_NEW_CONNECTIONS, _KEPT_CONNECTIONS = 4, 8


class Client:
    """Requests tokens as fast as it can, until the server no longer answers.

    Attributes:
        jtis: of the tokens that have arrived whole.
        broken: answers that began and did not arrive whole.
    """

    def __init__(self, route: Route, *, keep: bool) -> None:
        self.jtis: list[str] = []
        self.broken: list[str] = []
        self._way = route
        self._keep = keep
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection = self._connection()
        while True:
            try:
                connection.request("POST", "/issue", headers={"Host": self._way.host})
                response = connection.getresponse()
            except (OSError, http.client.HTTPException):
                # No byte of an answer has arrived: the server may have closed an idle connection.
                connection.close()
                if not self._ask_once():
                    return
                continue
            try:
                token = json.loads(response.read())["token"]
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.broken.append(repr(error))
                return
            self.jtis.append(jwt.decode(token, options={"verify_signature": False})["jti"])
            if not self._keep or response.will_close:
                connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._way.address, timeout=10)

    def _ask_once(self) -> bool:
        """Return whether a new connection is answered."""
        connection = self._connection()
        try:
            connection.request("GET", "/_healthz", headers={"Host": self._way.host})
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def join(self) -> None:
        """Wait until the server no longer answers."""
        self._thread.join(30)
        assert not self._thread.is_alive()


class Clients:
    """Several clients at once, each of which already has tokens; some keep their connections."""

    def __init__(self, route: Route) -> None:
        self._clients = [
            Client(route, keep=index >= _NEW_CONNECTIONS)
            for index in range(_NEW_CONNECTIONS + _KEPT_CONNECTIONS)
        ]
        until(lambda: all(len(client.jtis) > 20 for client in self._clients), "load", timeout_s=30)

    @property
    def jtis(self) -> set[str]:
        """The ids of all tokens that have arrived whole."""
        return {jti for client in self._clients for jti in client.jtis}

    def join(self) -> None:
        """Wait until the server no longer answers, and check that every answer has arrived whole."""
        for client in self._clients:
            client.join()
        assert [client.broken for client in self._clients if client.broken] == []
