"""Receive separated frames in another process with pyzmq and numpy alone.

``python subscribe.py tcp://127.0.0.1:5555 10``.
"""

import json
import sys

import numpy as np
import zmq

address, count = sys.argv[1], int(sys.argv[2])
socket = zmq.Context().socket(zmq.SUB)
socket.connect(address)
socket.subscribe(b"sr/frame")
for _ in range(count):
    _, text, pixels = socket.recv_multipart()
    header = json.loads(text)
    frame = np.frombuffer(pixels, header["dtype"]).reshape(header["shape"])
    names = ", ".join(
        f"{c['label']} {plane.mean():.0f}"
        for c, plane in zip(header["channels"], frame, strict=True)
    )
    print(
        f"t{header['t']} prediction by {header['ai']['model']['id']}: {names} ADU, residual"
        f" {header['residual']:.2f}"
    )
