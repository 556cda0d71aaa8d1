"""The benchmark: gatewise beside its peers, compared before they are timed, in turns within one process."""
