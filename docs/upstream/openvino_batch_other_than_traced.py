"""OpenVINO 2026.4, CPU plugin, one thread: a graph of code that loops over the batch answers at any batch, wrongly.

The inputs of the graph are dynamic, its body holds as many copies as the trace had rows. With one row it returns two,
without an error; in larger graphs (LLaVA, for one) the next run ends in a segmentation fault. An error would be right.
"""

import subprocess
import sys

CHILD = """
import openvino as ov, torch

class Rows(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 64)
    def forward(self, x):
        return torch.stack([self.linear(row) * (i + 1) for i, row in enumerate(x.unbind(0))])

torch.manual_seed(0)
model = ov.convert_model(Rows().eval(), example_input=torch.randn(2, 16, 64), input=[ov.PartialShape([-1, 16, 64])])
options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
compiled = ov.Core().compile_model(model, "CPU", options)
request = compiled.create_infer_request()
for rows in (2, 1, 2, 3, 2):
    try:
        shape = request.infer([torch.randn(rows, 16, 64).numpy()])[compiled.output(0)].shape
        print(f"{rows} rows in, {shape[0]} rows out", flush=True)
    except RuntimeError as error:
        print(f"{rows} rows in: {str(error).splitlines()[0][:80]}", flush=True)
"""

done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=False)
print(done.stdout, end="")
wrong = [line for line in done.stdout.splitlines() if " rows out" in line and line.split()[0] != line.split()[3]]
crashed = done.returncode < 0
print(
    f"DEFECT: {'it died of signal ' + str(-done.returncode) if crashed else wrong[0]}" if crashed or wrong else "FIXED"
)
