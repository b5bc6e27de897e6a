"""A verifier as a service: hardware evidence in, a signed attestation result out. It keeps nothing.

Evidence is judged under a policy and without a log (``quotary.client.appraisal``), so a result says what the
hardware is worth and never that it runs a released image.
"""
