"""`python -m tests.schemathesis [--minutes M]`: against `secateur up`, where jobs really run."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.conftest import MODEL_LIMIT, start
from tests.e2e.files import network, npz, samples
from tests.schemathesis.run import run


def main() -> int:
    """The exit status of Schemathesis: 0 without a failure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=5.0)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as folder:
        service = start(Path(folder), SECATEUR_MODEL_BYTES_LIMIT=str(MODEL_LIMIT))
        try:
            with service.client() as client:
                model = client.wait_ready(client.upload_model(network(), "net.onnx"))
                data = client.wait_ready(client.upload_dataset(npz(samples()), "data.npz"))
                client.wait(client.submit(model.id, data.id, {"target": {"sparsity": 0.5}}))
            status, said = run(service.url, service.api_key, round(60 * minutes), Path(folder))
        finally:
            service.stop()
    print(said)
    return status


if __name__ == "__main__":
    sys.exit(main())
