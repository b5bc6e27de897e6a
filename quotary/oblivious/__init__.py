"""Formats of the private path: binary HTTP, Oblivious HTTP, blind RSA and Privacy Pass tokens.

Bytes in, bytes out: no socket, no clock, no file. Who may be believed is not decided here; the gateway's key
counts because it stands in an attested keyset, and an issuer's because the log has it.
"""
