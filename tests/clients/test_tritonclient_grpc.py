"""Triton's own Python client over gRPC, and its asyncio clients, unchanged."""

import asyncio
import queue
import unittest

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
import tritonclient.http.aio as http_aio
from reference import FILES, TOLERANCE, reference, windows
from server import Server

OUTPUTS = ("features", "prediction")


class TritonGrpcClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(VOLLEY_MODELS__CNN_LSTM__VARIANTS='["int8","fp32"]')
        cls.references = {variant: reference(path) for variant, path in FILES.items()}

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def check(self, result, values, variant):
        expected = self.references[variant].run(list(OUTPUTS), {"input": values})
        for name, b in zip(OUTPUTS, expected, strict=True):
            a = result.as_numpy(name)
            self.assertEqual(a.shape, b.shape)
            self.assertLess(np.abs(a - b).max(), TOLERANCE, f"{name} of {variant}")

    @staticmethod
    def tensor(values, of=triton):
        tensor = of.InferInput("input", list(values.shape), "FP32")
        tensor.set_data_from_numpy(values)
        return tensor

    def client(self):
        return triton.InferenceServerClient(self.server.grpc_address)

    def test_answers_are_those_of_onnx_runtime_compressed_or_not(self):
        with self.client() as client:
            for variant in FILES:
                for rows in (1, 7, 32):
                    for algorithm in (None, "gzip", "deflate"):
                        with self.subTest(variant=variant, rows=rows, algorithm=algorithm):
                            values = windows(rows, seed=rows)
                            result = client.infer(
                                "cnn_lstm", [self.tensor(values)], compression_algorithm=algorithm,
                                parameters={"variant": variant, "cache": False}, request_id="a1", priority=1,
                            )
                            self.assertEqual(result.get_response().id, "a1")
                            self.check(result, values, variant)

    def test_health_metadata_configuration_and_statistics(self):
        with self.client() as client:
            self.assertTrue(client.is_server_live() and client.is_server_ready() and client.is_model_ready("cnn_lstm"))
            self.assertEqual(client.get_server_metadata().name, "volley")
            self.assertEqual(list(client.get_model_metadata("cnn_lstm").inputs[0].shape), [-1, 50, 60])
            config = client.get_model_config("cnn_lstm").config
            self.assertEqual((config.max_batch_size, list(config.input[0].dims)), (32, [50, 60]))
            self.assertEqual(client.get_model_repository_index().models[0].state, "READY")
            client.infer("cnn_lstm", [self.tensor(windows(2, seed=77))])
            statistics = client.get_inference_statistics("cnn_lstm").model_stats[0]
            self.assertGreaterEqual(statistics.inference_count, 2)
            self.assertGreaterEqual(statistics.inference_stats.success.count, 1)

    def test_what_is_wrong_has_a_code_and_a_sentence(self):
        values = windows(1, seed=1)
        with self.client() as client:
            cases = [
                ("NOT_FOUND", "not served", lambda: client.infer("other", [self.tensor(values)])),
                ("INVALID_ARGUMENT", "shape", lambda: client.infer("cnn_lstm", [self.tensor(values[:, :49])])),
                ("DEADLINE_EXCEEDED", "timeout", lambda: client.infer(
                    "cnn_lstm", [self.tensor(values)], timeout=1, parameters={"cache": False})),
                ("UNIMPLEMENTED", "shared memory", lambda: client.register_system_shared_memory("r", "/r", 12000)),
            ]
            for code, words, call in cases:
                with self.subTest(code=code):
                    with self.assertRaises(triton.InferenceServerException) as refused:
                        call()
                    self.assertIn(code, refused.exception.status())
                    self.assertIn(words, refused.exception.message())

    def test_a_stream_is_answered_in_order_and_goes_on_after_a_refusal(self):
        answers = queue.Queue()
        with self.client() as client:
            client.start_stream(callback=lambda result, error: answers.put((result, error)))
            asked = [windows(1, seed=seed) for seed in range(20)]
            for turn, values in enumerate(asked):
                model = "other" if turn == 7 else "cnn_lstm"
                client.async_stream_infer(model, [self.tensor(values)], request_id=str(turn))
            for turn, values in enumerate(asked):
                result, error = answers.get(timeout=60)
                if turn == 7:
                    self.assertIn("not served", error.message())
                    continue
                self.assertIsNone(error)
                self.assertEqual(result.get_response().id, str(turn))
                self.check(result, values, "int8")
            client.stop_stream()

    def test_asyncio_clients_ask_and_stream(self):
        async def ask():
            async with triton_aio.InferenceServerClient(self.server.grpc_address) as client:
                asked = [windows(1, seed=seed) for seed in range(8)]
                calls = [client.infer("cnn_lstm", [self.tensor(values)]) for values in asked]
                for values, result in zip(asked, await asyncio.gather(*calls), strict=True):
                    self.check(result, values, "int8")

                async def requests():
                    for values in asked:
                        yield {"model_name": "cnn_lstm", "inputs": [self.tensor(values)]}

                turn = 0
                async for result, error in client.stream_infer(requests()):
                    self.assertIsNone(error)
                    self.check(result, asked[turn], "int8")
                    turn += 1
                self.assertEqual(turn, len(asked))
            async with http_aio.InferenceServerClient(self.server.address) as client:
                values = windows(2, seed=4)
                self.check(await client.infer("cnn_lstm", [self.tensor(values, http_aio)]), values, "int8")

        asyncio.run(ask())


if __name__ == "__main__":
    unittest.main()
