"""ONNX graphs: rewritten, quantised, packed and cached; nothing here knows about scoring."""
