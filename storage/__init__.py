"""Files: object store, corpora, Parquet parts, versions and aliases."""
