"""The embedded stack: real S3, Redis and PostgreSQL servers from wheels, owned by one supervisor process.

`mlplatform.local.stack` is the way in; everything else here is how it works.
"""
