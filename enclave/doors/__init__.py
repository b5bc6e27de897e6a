"""Doors for other systems' clients: their paths, reports and signatures over this enclave's own answers.

A door is open only where the measured policy names it (``enclave.doors``). It carries no prompt by itself:
prompts come through the sealed channel, or in clear only where the policy says ``plaintext: allowed``. What
a door signs with stands in the keyset under the role ``door`` (docs/formats/doors.md).
"""
