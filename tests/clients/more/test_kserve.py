"""KServe's own clients, unchanged, over HTTP (V1 and V2) and gRPC."""

import asyncio
import unittest

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from server import Server


class KserveClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.values = np.random.default_rng(5).standard_normal((2, 50, 60)).astype(np.float32)

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def request(self, binary):
        tensor = InferInput("input", list(self.values.shape), "FP32")
        tensor.set_data_from_numpy(self.values, binary_data=binary)
        return InferRequest(model_name="cnn_lstm", infer_inputs=[tensor])

    @staticmethod
    def prediction(response):
        return next(output for output in response.outputs if output.name == "prediction").as_numpy().reshape(2, 3)

    def test_v1_v2_and_grpc_say_the_same(self):
        async def ask():
            url = f"http://{self.server.address}"
            v2 = InferenceRESTClient(RESTConfig(protocol="v2"))
            self.assertTrue(await v2.is_server_live(url) and await v2.is_server_ready(url))
            self.assertTrue(await v2.is_model_ready(url, "cnn_lstm"))
            answers = [
                self.prediction(await v2.infer(url, self.request(binary), model_name="cnn_lstm"))
                for binary in (False, True)
            ]
            v1 = InferenceRESTClient(RESTConfig(protocol="v1"))
            self.assertTrue(await v1.is_model_ready(url, "cnn_lstm"))
            rows = await v1.infer(url, {"instances": self.values.tolist()}, model_name="cnn_lstm")
            answers.append(np.array([row["prediction"] for row in rows["predictions"]], dtype=np.float32))
            grpc = InferenceGRPCClient(self.server.grpc_address)
            self.assertTrue(await grpc.is_server_live() and await grpc.is_server_ready())
            self.assertTrue(await grpc.is_model_ready("cnn_lstm"))
            answers.append(self.prediction(await grpc.infer(self.request(binary=True))))
            for answer in answers[1:]:
                np.testing.assert_allclose(answer, answers[0], atol=1e-6)

        asyncio.run(ask())


if __name__ == "__main__":
    unittest.main()
