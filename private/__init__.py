"""Services of the private path, each run by another operator than the enclave's: relay, issuer.

They share nothing but this package's server; none of them sees both who asks and what is asked.
"""
