"""The hash BLAKE2b, without OpenSSL: the module hashlib loads it, and it needs a megabyte."""

from _blake2 import blake2b

__all__ = ["blake2b"]
