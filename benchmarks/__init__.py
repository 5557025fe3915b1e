"""Side-by-side measurements, one file per claim: ``python -m benchmarks`` lists them."""
