"""An http server on loopback that can misbehave in the ways in which real ones do."""

import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Server:
    """What the server is told to do, which may change while it runs, and what it was asked."""

    files: dict[str, bytes]
    base_url: str = ""
    knows_ranges: bool = True
    announces_length: bool = True
    cut_after: int | None = None
    status: int = 200
    redirect: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    """The name and the range of each request."""


@contextmanager
def serving(files: dict[str, bytes]) -> Generator[Server, None, None]:
    """A server of `files` that runs until the block ends."""
    told = Server(files=files)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, span = self.path.rpartition("/")[2], self.headers.get("Range", "")
            told.asked.append((name, span))
            if told.redirect:
                self.reply(302, b"", {"Location": told.redirect})
            elif told.status != 200 or name not in told.files:
                self.reply(404 if told.status == 200 else told.status, b"")
            else:
                content = told.files[name]
                start = int(span.removeprefix("bytes=").removesuffix("-")) if span and told.knows_ranges else 0
                headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
                self.reply(206 if start else 200, content[start:], headers)

        def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            length = {"Content-Length": str(len(body))} if told.announces_length else {}
            self.send_response(status)
            for name, value in (length | (headers or {})).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[: told.cut_after])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the signature of http.server
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.base_url = f"http://127.0.0.1:{http.server_address[1]}/sets"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield told
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
