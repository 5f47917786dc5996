"""The sampling rate of every waveform in hff: audio is resampled to it when it is read, and upstreams take nothing else."""

RATE_HZ = 16000
