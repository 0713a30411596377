import subprocess
import sys
import zipfile

import numpy as np
import pytest

from pruning.data.kinds import check_dataset
from pruning.errors import SecateurError

CHECKS_WITHOUT_TORCH = """
import sys
from pathlib import Path
from pruning.data.kinds import check_dataset
print([check_dataset(Path(path)).format for path in sys.argv[1:]], "torch" in sys.modules)
"""


def test_the_kind_is_told_from_the_content_and_without_torch(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image
    from safetensors.numpy import save_file

    arrays = {"x": np.ones((3, 2), np.float32)}
    with (tmp_path / "0").open("wb") as file:
        np.savez(file, **arrays)
    save_file(arrays, tmp_path / "1")
    (tmp_path / "2").write_text('{"text": "a"}\n')
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "3", "w") as archive:
        archive.write(tmp_path / "a.png", "a.png")
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "4")
    said = subprocess.run(
        [sys.executable, "-c", CHECKS_WITHOUT_TORCH, *(str(tmp_path / str(i)) for i in range(5))],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert said.strip() == "['npz', 'safetensors', 'jsonl', 'images', 'parquet'] False"


def test_what_is_not_read_is_answered_with_what_is(tmp_path):
    path = tmp_path / "data.npz"
    path.write_bytes(b"%PDF-1.7")
    with pytest.raises(SecateurError) as caught:
        check_dataset(path)
    error = caught.value
    assert (error.code, error.status) == ("unsupported_format", 415)
    assert "a PDF document" in error.message
    for word in (".npz", "safetensors", ".jsonl", "class folders", "Parquet"):
        assert word in error.message
    assert "docs/prepare-data.md" in (error.hint or "")
