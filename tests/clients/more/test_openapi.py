"""`schemathesis`, which asks everything that the server's OpenAPI document allows, and much that it does not."""

import pathlib
import subprocess
import sysconfig
import tempfile
import unittest

from server import Server

PROGRAM = pathlib.Path(sysconfig.get_path("scripts")) / "schemathesis"
EXAMPLES = "50"


class OpenApi(unittest.TestCase):
    def test_nothing_is_found(self):
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            searched = subprocess.run(
                # What fits the document may still not fit the model: that is refused, and is to be.
                [PROGRAM, "run", f"http://{server.address}/openapi.json", "--max-examples", EXAMPLES,
                 # It finds the model's name in the index, and loads it.
                 "--request-timeout", "120",
                 "--exclude-checks", "positive_data_acceptance", "--seed", "1", "--no-color"],
                # It keeps what it has seen in the working folder.
                cwd=folder, capture_output=True, text=True, timeout=1200,
            )
        self.assertEqual(searched.returncode, 0, searched.stdout[-8000:] + searched.stderr)


if __name__ == "__main__":
    unittest.main()
