"""The workloads: what is measured, each for any peer."""
