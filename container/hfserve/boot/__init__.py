"""The supervisor and what it starts: nginx, MMS, workers."""
