"""Templates, one stylesheet and verify.js: what ``registry/pages/`` renders and serves."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
