"""A project around the sleeping model: service times are known and cost no processor time."""

from __future__ import annotations

import json
import shutil

from deployctl import share

CONFIG = """name: "nap"
backend: "python"
max_batch_size: 8
input {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }}
output {{ name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }}
instance_group {{ kind: KIND_CPU count: 1 }}
parameters {{ key: "t0_s" value {{ string_value: "{t0_s}" }} }}
parameters {{ key: "a_s" value {{ string_value: "{a_s}" }} }}
dynamic_batching {{ }}
"""
DEPLOY = """version: 1
name: nap
model: {{source: "triton:repo", sample: samples.jsonl}}
slo: {{latency: {{p90: {slo}}}, errors: 1%}}
traffic: {{rate: {rate}}}
environments:
  local: {{limits: {{replicas: ..2}}}}
"""


def write(folder, *, slo="400ms", rate="20/s", t0_s=0.012, a_s=0.002):
    version = folder / "repo" / "nap" / "1"
    version.mkdir(parents=True)
    (folder / "repo" / "nap" / "config.pbtxt").write_text(CONFIG.format(t0_s=t0_s, a_s=a_s))
    shutil.copy(share.folder("model_repo") / "sleep" / "1" / "model.py", version)
    lines = [{"INPUT0": {"dtype": "FP32", "shape": [1, 4], "data": [float(i), 1.0, 2.0, 3.0]}} for i in range(4)]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "deploy.yaml").write_text(DEPLOY.format(slo=slo, rate=rate))
    return folder
