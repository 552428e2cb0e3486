"""Tests of what the benchmark stands on."""
