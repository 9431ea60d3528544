"""Devices in a browser (`wasm`, `webgpu`, `webnn`): onnxruntime-web runs the models that `exported/` converts to ONNX.

| module | what it does |
|---|---|
| `installed.py` | which browser, Node packages and Python packages are here, without starting anything |
| `browser.py` | one headless browser per process: started, watched, ended with all its processes |
| `server.py` | what the browser reaches: files, and the way to each page |
| `page/` | the page: takes commands, runs models, sends results back |
| `runtime.py` | the `ExportedRuntime` and `CompiledGraph` |
| `backend.py` | the `Backend` |
"""
