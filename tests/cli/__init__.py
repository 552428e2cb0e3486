"""The command s3mount: what it reads, what it says, how it goes into the background."""
