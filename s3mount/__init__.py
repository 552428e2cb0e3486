"""s3mount presents an S3 bucket as a read-mostly filesystem."""

__version__ = "0.1.0"
