"""Values that the examples of the document have in common."""

from pydantic import JsonValue

WHEN = "2026-03-01T12:00:00Z"
SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
MODEL_ID = "mdl_06f3k2m5q7a2c4e6g7j2k4m6p7"
DATASET_ID = "ds_06f3k2n5q7a2c4e6g7j2k4m6p7"
JOB_ID = "job_06f3k2p5q7a2c4e6g7j2k4m6p7"
KEY_ID = "key_06f3k2r5q7a2c4e6g7j2k4m6p7"
SPEC: dict[str, JsonValue] = {"criterion": {"kind": "obs"}, "target": {"sparsity": 0.85}}
