"""From decoded windows to segments and a transcript."""
