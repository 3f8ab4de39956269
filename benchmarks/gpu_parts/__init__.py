"""The parts of benchmarks/gpu.py, and what runs them within their time."""
