"""Input recordings and output files of a job."""
