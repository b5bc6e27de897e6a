"""Where a key inside a PKCS #11 token lies: a file ``<name>.token`` in the place of ``<name>.pem``."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from quotary.errors import CannotTell, Malformed

MEMBERS = ("module", "token", "key", "pin_file")


@dataclass(frozen=True, slots=True)
class TokenPlace:
    """Where a key lies.

    module:   path of the vendor's PKCS #11 library
    token:    label of the token; key: label of the key's two halves
    pin_file: holds the user's PIN on one line; mode 0600
    """

    module: str
    token: str
    key: str
    pin_file: str

    @classmethod
    def read(cls, path: Path) -> "TokenPlace":
        """Read a ``.token`` file: exactly four members, all text."""
        try:
            found = tomllib.loads(path.read_text("utf-8"))
        except OSError as error:
            raise CannotTell(f"cannot read {path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise Malformed(f"{path} is not TOML: {error}") from error
        if set(found) != set(MEMBERS) or not all(isinstance(value, str) for value in found.values()):
            raise Malformed(f"{path} has not exactly the members {', '.join(MEMBERS)}")
        return cls(**found)

    def text(self) -> str:
        """Write what ``read`` reads."""
        text = "".join(f'{name} = "{getattr(self, name)}"\n' for name in MEMBERS)
        if tomllib.loads(text) != {name: getattr(self, name) for name in MEMBERS}:
            raise Malformed("the names of a token and its files have no quotes or backslashes")
        return text
