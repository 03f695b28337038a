"""Text on disk -> pairs -> batches.  Nothing here needs torch until a Batch is made."""
