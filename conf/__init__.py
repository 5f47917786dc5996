"""Packaged as hfftools.conf, so that an installed hff has its configurations too."""
