"""The corpora on disk: Parquet shards, their schema, data card, converters and the page that shows them."""
