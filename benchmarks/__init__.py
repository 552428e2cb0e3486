"""The benchmark: mount programs side by side on one modelled S3, doing the same work."""
