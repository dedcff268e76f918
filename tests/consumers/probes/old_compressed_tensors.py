"""compressed-tensors 0.17's own packer. OUT CODES_NPZ (int8 arrays named by width)"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(sys.prefix) / "compressed-tensors-0.17"))
import compressed_tensors
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

out = Path(sys.argv[1])
with np.load(sys.argv[2]) as stored:
    packed = {name: pack_to_int32(torch.from_numpy(stored[name]), int(name)).numpy() for name in stored}
np.savez(out.with_suffix(".npz"), **packed)
out.with_suffix(".json").write_text(json.dumps({"version": compressed_tensors.__version__}))
