"""This file tests what the demo's visitors tell of how they were answered."""

from __future__ import annotations

import socket
import threading

from branchline.cli.demo_trouble import Crowd

HEAD = b"HTTP/1.1 %d X\r\nconnection: close\r\ncontent-length: 2\r\n\r\n"
REPLIES = (HEAD % 200 + b"h", b"", HEAD % 503 + b"no", HEAD % 200 + b"ok")


def test_an_answer_that_is_cut_is_told_apart_from_none() -> None:
    """Killer: count a cut one as answered, or as none: nobody could have asked again, and nobody has failed to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        crowd = Crowd(f"http://127.0.0.1:{server.getsockname()[1]}/houses/")

        def answer() -> None:
            for reply in REPLIES:
                wire, _ = server.accept()
                with wire:
                    wire.recv(1 << 16)
                    wire.sendall(reply)
                    if reply is REPLIES[-1]:
                        crowd.over.set()

        serving = threading.Thread(target=answer)
        serving.start()
        crowd.visit(0)
        serving.join()
    assert crowd.ending() == "4 requests, 2 failed, 1 cut in the middle of an answer, which nobody can begin again"
