"""This file holds the servers that tests start: one program, whose argument says how it behaves."""

SERVER = """
import os, sys, time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingMixIn, UnixStreamServer

mode = sys.argv[1]
nonce = "somebody else" if mode == "stranger" else os.environ["BRANCHLINE_NONCE"]
print(mode, "starts", flush=True)
if mode == "dies":
    sys.exit("no model here")
if mode == "hangs":
    while True:
        time.sleep(60)

class Handler(BaseHTTPRequestHandler):
    def address_string(self):
        return "unix"

    def log_message(self, *words):
        pass

    def do_GET(self):
        status = 500 if mode == "fails" else 200
        self.send_response(status)
        if mode != "silent":
            self.send_header("x-envoy-upstream-healthchecked-cluster", nonce)
        self.send_header("content-length", "0")
        self.end_headers()

class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

path = os.environ["BRANCHLINE_SOCKET"]
if mode == "elsewhere":
    path += ".elsewhere"
if mode == "children" and os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    time.sleep(600)
Server(path, Handler).serve_forever()
"""

LEVELS = """
import json, os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

level = float(Path("level").read_text())
mode = Path("mode").read_text().strip()

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self):
        return "unix"

    def log_message(self, *words):
        pass

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = json.dumps({"prediction": level}).encode()
        self.send_response(500 if mode == "fails" and self.command == "POST" else 200)
        self.send_header("x-envoy-upstream-healthchecked-cluster", os.environ["BRANCHLINE_NONCE"])
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

Server(os.environ["BRANCHLINE_SOCKET"], Handler).serve_forever()
"""

# Speaks HTTP/2 alone, and answers any call as a gRPC server does that knows no such method.
CALLED = """
import os, socket
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import RequestReceived

with socket.socket(socket.AF_UNIX) as listening:
    listening.bind(os.environ["BRANCHLINE_SOCKET"])
    listening.listen()
    while True:
        wire, _ = listening.accept()
        with wire:
            served = H2Connection(H2Configuration(client_side=False))
            served.initiate_connection()
            wire.sendall(served.data_to_send())
            while data := wire.recv(65536):
                for event in served.receive_data(data):
                    if isinstance(event, RequestReceived):
                        assert (b":method", b"POST") in event.headers
                        told = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "12")]
                        served.send_headers(event.stream_id, told, end_stream=True)
                wire.sendall(served.data_to_send())
"""
