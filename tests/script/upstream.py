"""A provider that misbehaves on purpose: each connection is handed to a function of the test."""
import socket
import threading


class Upstream:
    """Listens on loopback; `behave(connection, request_bytes)` decides what each request gets. Counts them."""

    def __init__(self, behave=None):
        self.behave = behave or (lambda c, r: None)
        self.requests = []
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.url = "http://127.0.0.1:%d" % self.port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(c,), daemon=True).start()

    def _serve(self, c):
        with c:
            try:
                while True:
                    request = read_request(c)
                    if request is None:
                        return
                    with self.lock:
                        self.requests.append(request)
                    if self.behave(c, request) == "close":
                        return
            except OSError:
                return

    def close(self):
        self.listener.close()


def read_request(c):
    data = b""
    while b"\r\n\r\n" not in data:
        piece = c.recv(65536)
        if not piece:
            return None
        data += piece
    head, body = data.split(b"\r\n\r\n", 1)
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, value = line.split(b":", 1)
        if name.lower() == b"content-length":
            length = int(value)
    while len(body) < length:
        piece = c.recv(65536)
        if not piece:
            return None
        body += piece
    return head + b"\r\n\r\n" + body


def answer(c, status, body=b"{}", headers=b""):
    c.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n" %
              (status, len(body), headers) + body)
