"""`python -m benchmarks [name ...]`: run the named benchmarks, or all of them."""

import importlib
import sys

from benchmarks.common import Skipped

BENCHMARKS = {
    "one_shot_digits": "accuracy left at 85 % sparsity without retraining: magnitude, OBD, OBS",
    "lenet_mnist": "LeNet-300-100: OBS and magnitude at 90 % in one shot, 3 % left after rounds",
    "lecun_digits": "loss increase as weights are deleted: measured, quadratic model, OBD alone",
    "max_drop": "the most sparsity within one point of accuracy, and whether the answer keeps it",
    "monks": "MONK's problems: weights left when the first answer goes wrong, by criterion",
    "layerwise": "layers of a sentence encoder beside the reference code of SparseGPT and ALPS",
    "layerwise_model": "a sentence encoder pruned without labels: cosine of its embeddings",
    "layerwise_gpu": "large layers on a GPU beside the reference code of SparseGPT",
    "greedy_obs": "greedy OBS in a layer beside the reference code of Optimal Brain Compression",
    "curvature_cost": "diagonals and block inverses in units of a plain pass; BackPACK, curvlinops",
    "trust_cost": "what trust takes beside the rest of a job, by the clock and as counted",
    "recovery_cost": "what masks cost a training: time of a step, peak memory; a plain torch loop",
    "loading": "training over shuffled batches against batches gathered beforehand",
    "minilm_http": "a sentence encoder over HTTP, folder up and folder back, end to end",
    "import_cost": "reading ONNX files, in units of onnx.load and its checker",
    "report_render": "report.html of 100 layers: seconds and bytes",
    "http_door": "the API under requests made to be work, and beside slow clients in every phase",
    "curl_job": "the job of README.md, by curl, beside four busy processes",
    "job_cost": "a whole job on 2,368 weights, magnitude and OBS, in one process and by a service",
    "command_line": "start of the command line, and of one against a dead service",
    "polling": "GET of a job beside a bare route of the same process, also while the job runs",
    "streams": "what 300 event streams cost other requests",
    "uploads_at_once": "1,000 uploads of 1 MB at the same moment: answers, memory, /healthz",
    "service_overhead": "the same job through the service and in one process",
}


def main(names: list[str]) -> int:
    """Run benchmarks in order; 1 if a figure was missed. What was skipped is said at the end."""
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        print(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
        return 2
    missed, skipped = 0, []
    for name in names or BENCHMARKS:
        print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        try:
            missed += not importlib.import_module(f"benchmarks.{name}").run()
        except Skipped as reason:
            print(f"skipped: {reason}", flush=True)
            skipped.append(name)
    if skipped:
        print(f"\nskipped: {', '.join(skipped)}")
    return min(missed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
