"""Triton's own Python client over HTTP, unchanged, against ONNX Runtime on the same file."""

import threading
import unittest

import numpy as np
import tritonclient.http as triton
from reference import FILES, TOLERANCE, reference, windows
from server import Server


class TritonClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(VOLLEY_MODELS__CNN_LSTM__VARIANTS='["int8","fp32"]')
        cls.references = {variant: reference(path) for variant, path in FILES.items()}

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def infer(self, client, values, *, binary, variant, **options):
        tensor = triton.InferInput("input", list(values.shape), "FP32")
        tensor.set_data_from_numpy(values, binary_data=binary)
        outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("features", "prediction")]
        parameters = {"variant": variant, "cache": False}
        result = client.infer("cnn_lstm", [tensor], outputs=outputs, parameters=parameters, **options)
        return [result.as_numpy(name) for name in ("features", "prediction")]

    def check(self, got, values, variant, **about):
        expected = self.references[variant].run(["features", "prediction"], {"input": values})
        for name, a, b in zip(("features", "prediction"), got, expected, strict=True):
            self.assertEqual(a.shape, b.shape)
            difference = np.abs(a - b).max()
            self.assertLess(difference, TOLERANCE, f"{name} of {variant}, {about}")

    def test_answers_are_those_of_onnx_runtime_in_both_forms(self):
        with triton.InferenceServerClient(self.server.address) as client:
            for variant in FILES:
                for rows in (1, 7, 32):
                    for binary in (True, False):
                        with self.subTest(variant=variant, rows=rows, binary=binary):
                            values = windows(rows, seed=rows)
                            got = self.infer(client, values, binary=binary, variant=variant)
                            self.check(got, values, variant, rows=rows, binary=binary)

    def test_answers_do_not_depend_on_company(self):
        failures = []

        def caller(index):
            try:
                with triton.InferenceServerClient(self.server.address) as client:
                    for turn in range(20):
                        rows = (1, 7)[(index + turn) % 2]
                        values = windows(rows, seed=1000 * index + turn)
                        if index % 3 == 2:
                            values *= 1000  # an outlier in everybody's batch
                        got = self.infer(client, values, binary=turn % 3 > 0, variant="int8")
                        self.check(got, values, "int8", caller=index, turn=turn)
            except Exception as failure:  # carried to the test's own thread
                failures.append(failure)

        threads = [threading.Thread(target=caller, args=(index,)) for index in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(failures, [])

    def test_priority_timeout_and_request_id_pass_through(self):
        with triton.InferenceServerClient(self.server.address) as client:
            values = windows(1, seed=5)
            got = self.infer(client, values, binary=True, variant="int8", priority=1, timeout=30_000_000, request_id="a1")
            self.check(got, values, "int8")
            with self.assertRaises(triton.InferenceServerException) as refused:
                self.infer(client, values, binary=True, variant="int8", timeout=1)
            self.assertIn("timeout", str(refused.exception))

    def test_health_and_metadata(self):
        with triton.InferenceServerClient(self.server.address) as client:
            self.assertTrue(client.is_server_live() and client.is_server_ready() and client.is_model_ready("cnn_lstm"))
            self.assertEqual(client.get_server_metadata()["name"], "volley")
            metadata = client.get_model_metadata("cnn_lstm")
            self.assertEqual(metadata["inputs"][0]["shape"], [-1, 50, 60])

    def test_no_outputs_named_means_all_of_them_in_binary(self):
        with triton.InferenceServerClient(self.server.address) as client:
            values = windows(2, seed=9)
            tensor = triton.InferInput("input", list(values.shape), "FP32")
            tensor.set_data_from_numpy(values)
            result = client.infer("cnn_lstm", [tensor])
            self.check([result.as_numpy("features"), result.as_numpy("prediction")], values, "int8")

    def test_compressed_requests_and_answers_say_the_same(self):
        with triton.InferenceServerClient(self.server.address) as client:
            values = windows(3, seed=11)
            plain = self.infer(client, values, binary=False, variant="int8")
            for algorithm in ("gzip", "deflate"):
                for binary in (True, False):
                    with self.subTest(algorithm=algorithm, binary=binary):
                        got = self.infer(
                            client, values, binary=binary, variant="int8",
                            request_compression_algorithm=algorithm, response_compression_algorithm=algorithm,
                        )
                        for a, b in zip(got, plain, strict=True):
                            np.testing.assert_allclose(a, b, atol=TOLERANCE)

    def test_requests_sent_without_waiting_are_all_answered(self):
        with triton.InferenceServerClient(self.server.address, concurrency=4) as client:
            asked = []
            for seed in range(12):
                values = windows(1, seed=seed)
                tensor = triton.InferInput("input", list(values.shape), "FP32")
                tensor.set_data_from_numpy(values)
                asked.append((values, client.async_infer("cnn_lstm", [tensor], request_id=str(seed))))
            for seed, (values, pending) in enumerate(asked):
                result = pending.get_result()
                self.assertEqual(result.get_response()["id"], str(seed))
                self.check([result.as_numpy("features"), result.as_numpy("prediction")], values, "int8", seed=seed)

    def test_configuration_statistics_and_index(self):
        with triton.InferenceServerClient(self.server.address) as client:
            self.assertEqual(client.get_model_config("cnn_lstm")["max_batch_size"], 32)
            statistics = client.get_inference_statistics("cnn_lstm")["model_stats"][0]
            self.assertIn("success", statistics["inference_stats"])
            self.assertEqual(client.get_model_repository_index()[0]["state"], "READY")

    def test_what_is_not_offered_is_refused_in_words(self):
        with triton.InferenceServerClient(self.server.address) as client:
            with self.assertRaisesRegex(triton.InferenceServerException, "shared memory is not offered"):
                client.register_system_shared_memory("region", "/region", 12000)
            tensor = triton.InferInput("input", [1, 50, 60], "FP32")
            tensor.set_shared_memory("region", 12000)
            with self.assertRaisesRegex(triton.InferenceServerException, "shared memory is not offered"):
                client.infer("cnn_lstm", [tensor])
            tensor.set_data_from_numpy(windows(1, seed=1))
            classes = triton.InferRequestedOutput("prediction", class_count=2)
            with self.assertRaisesRegex(triton.InferenceServerException, "classification: not offered"):
                client.infer("cnn_lstm", [tensor], outputs=[classes])


if __name__ == "__main__":
    unittest.main()
