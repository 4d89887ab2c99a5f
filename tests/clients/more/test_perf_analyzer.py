"""Triton's `perf_analyzer`, unchanged: the program lies in an old wheel of its client."""

import os
import pathlib
import subprocess
import sysconfig
import unittest

from server import Server

PACKAGES = pathlib.Path(sysconfig.get_path("purelib"))
PROGRAM = pathlib.Path(sysconfig.get_path("scripts")) / "perf_analyzer"


class PerfAnalyzer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # It fills tensors with random bytes, and some of those are NaNs.
        cls.server = Server(VOLLEY_MODELS__CNN_LSTM__ALLOW_NON_FINITE="true")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()

    def measure(self, *options):
        libraries = [str(PACKAGES / "nvidia/cuda_runtime/lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        measured = subprocess.run(
            [PROGRAM, "-m", "cnn_lstm", "--measurement-interval", "1000", "--stability-percentage", "999",
             "--max-trials", "3", *options],
            env=os.environ | {"LD_LIBRARY_PATH": ":".join(filter(None, libraries))},
            capture_output=True, text=True, timeout=120,
        )
        self.assertEqual(measured.returncode, 0, measured.stdout + measured.stderr)
        self.assertIn("Throughput:", measured.stdout)
        self.assertNotIn("Failed", measured.stdout)

    def test_over_http(self):
        self.measure("-u", self.server.address, "-i", "http", "--concurrency-range", "4")

    def test_over_grpc(self):
        self.measure("-u", self.server.grpc_address, "-i", "grpc", "--concurrency-range", "4", "-b", "4")

    def test_over_a_stream(self):
        self.measure("-u", self.server.grpc_address, "-i", "grpc", "--concurrency-range", "4", "--async", "--streaming")

    def test_over_compressed_grpc(self):
        self.measure("-u", self.server.grpc_address, "-i", "grpc", "--grpc-compression-algorithm", "gzip")

    def test_at_a_rate(self):
        self.measure("-u", self.server.address, "-i", "http", "--request-rate-range", "50", "--async")


if __name__ == "__main__":
    unittest.main()
