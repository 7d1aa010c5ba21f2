"""One fusion per file: what the exporter broke up, put together again."""
