"""Keys inside PKCS #11 tokens: those of a log and those of builders."""
