"""Define the sampling rate of all waveforms in hff: audio is resampled to it when read; upstreams accept no other."""

RATE_HZ = 16000
