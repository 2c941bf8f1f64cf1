"""The exported file: ONNX, its parity with torch, and its 8-bit variant."""
