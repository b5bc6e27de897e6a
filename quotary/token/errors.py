"""What a PKCS #11 token can answer instead of a signature."""

from quotary.errors import CannotTell, Refused


class TokenUnavailable(CannotTell):
    """The PKCS #11 token that holds a key is not there, or does not sign."""


class TokenRefused(Refused):
    """The token does not take the PIN; it is not tried again, because tokens count."""
