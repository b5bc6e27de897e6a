"""Keys that no single machine has: a threshold oblivious function (RFC 9497) over ristretto255, shared by
Feldman's scheme. Bytes in, bytes out; randomness comes from the caller.
"""
