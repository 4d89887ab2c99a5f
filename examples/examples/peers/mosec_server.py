"""The bundled model behind mosec: raw bytes in and out. Its port is set by MOSEC_PORT."""

import os

from mosec import Server, Worker
from window_model import WindowModel


class Windows(Worker):
    def __init__(self):
        super().__init__()
        self.model = WindowModel()

    def deserialize(self, data):
        return data

    def serialize(self, data):
        return data

    def forward(self, data):
        return self.model.answer(data)


if __name__ == "__main__":
    server = Server()
    # A wait of 0 would mean ten milliseconds; one is the least.
    wait = max(1, int(os.environ["PEER_WAIT_MS"]))
    server.append_worker(Windows, num=1, max_batch_size=32, max_wait_time=wait)
    server.run()
