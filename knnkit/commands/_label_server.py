"""Local web server of the page that `knnkit label` shows.

Listens only on 127.0.0.1. A request must contain a random token in its path, and must name this server as its host, so
that no other page and no other host name reaches the server. A form must come from this page.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from knnkit.errors import KnnkitError
from knnkit.render.label_page import View, render
from knnkit.training.labelling import Labelling

_MAX_FORM = 16 * 1024
_SECONDS = 30


class LabelServer(ThreadingHTTPServer):
    """Web server that shows one page to one person.

    Args:
        why: the reason to show on the page if there are no training rows to compare with.
        port: port to listen on; 0: any free port.

    Attributes:
        url: address to open in a browser; it contains the token.
    """

    daemon_threads = True

    def __init__(self, work: Labelling, why: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.path = f"/{secrets.token_urlsafe(32)}/"
        self.url = f"http://{self.host}{self.path}"
        self.said = ""
        self.lock = threading.Lock()  # a browser opens several connections
        self._work, self._why = work, why

    def page(self, nonce: str) -> str:
        """Returns the page in its present state; the browser runs only the script that carries `nonce`."""
        with self.lock:
            work = self._work
            progress = f"{work.given:,} labelled, {work.waiting:,} left"
            if work.row is None:
                progress = f"{work.given:,} labelled. Every row has a label."
            shown = (work.row, work.columns, work.labels, work.beside(), progress, self.said, work.can_undo)
            view = View(*shown, self._why, work.numbered)
            self.said = ""
        return render(view, nonce)

    def take(self, form: dict[str, str]) -> bool:
        """Does what a form of the page asks for: label, skip, undo or end; returns False for end."""
        what, row = form.get("do"), form.get("id")
        with self.lock:
            try:
                if what == "undo":
                    self._work.undo()
                elif what == "skip":
                    self._work.skip(row)
                elif "label" in form:
                    self._work.give(form["label"], row)
            except KnnkitError as error:
                self.said = f"{error}: {error.hint}"
        return what != "end"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Prints nothing: a browser may close a connection early."""


class _Handler(BaseHTTPRequestHandler):
    server: LabelServer
    timeout = _SECONDS
    server_version, sys_version = "knnkit", ""

    def do_GET(self) -> None:
        if self._is_ours():
            nonce = secrets.token_urlsafe(16)
            self._send(HTTPStatus.OK, self.server.page(nonce), nonce)

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        length = self.headers.get("Content-Length", "")
        from_here = self.headers.get("Origin", "") == f"http://{self.server.host}"
        if not (from_here and length.isdecimal() and int(length) <= _MAX_FORM):
            self._send(HTTPStatus.FORBIDDEN, "This was not sent from knnkit's page. Open the address in your terminal.")
            return
        try:
            found = parse_qs(self.rfile.read(int(length)).decode(), max_num_fields=8)
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, "This form is malformed.")
            return
        if self.server.take({name: values[0] for name, values in found.items()}):
            self._send(HTTPStatus.SEE_OTHER, "", location=self.server.path)
        else:
            self._send(HTTPStatus.OK, "The work has ended. You can close this page.")
            threading.Thread(target=self.server.shutdown, daemon=True).start()

    def _is_ours(self) -> bool:
        """Whether the request names this server and the token; if not, sends an error to the browser."""
        named = self.headers.get("Host", "") == self.server.host
        if named and hmac.compare_digest(self.path.encode(), self.server.path.encode()):
            return True
        self._send(HTTPStatus.NOT_FOUND, "No page has this address. Open the address that your terminal shows.")
        return False

    def _send(self, status: HTTPStatus, text: str, nonce: str = "", *, location: str = "") -> None:
        body = text.encode()
        allowed = f"style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; img-src data:; " if nonce else ""
        self.send_response(status)
        for name, value in {
            "Content-Type": f"text/{'html' if nonce else 'plain'}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"default-src 'none'; {allowed}form-action 'self'; base-uri 'none'; "
            "frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
            **({"Location": location} if location else {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Writes no log, because addresses contain the token."""
