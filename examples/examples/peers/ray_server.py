"""The bundled model behind Ray Serve: raw bytes in and out."""

import os
import signal

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response
from window_model import WindowModel


@serve.deployment(max_ongoing_requests=512, ray_actor_options={"num_cpus": 1})
class Windows:
    def __init__(self):
        self.model = WindowModel()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=int(os.environ["PEER_WAIT_MS"]) / 1000)
    async def batch(self, bodies):
        return self.model.answer(bodies)

    async def __call__(self, request: Request):
        return Response(await self.batch(await request.body()), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Windows.bind(), route_prefix="/")
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
