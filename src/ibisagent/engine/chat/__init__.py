"""Asking language models elsewhere: answers kept on disk, and a budget that many processes share."""
