"""The embedded stack: real S3, Redis, PostgreSQL and MLflow servers, owned by one supervisor process.

`mlplatform.local.stack` is the way in; everything else here is how it works.
"""
