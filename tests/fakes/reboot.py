"""A machine that was started again, as far as a note of a failed flush can tell."""

from pathlib import Path

from registry.flush import SUFFIX


def restart_machine(folder: Path) -> list[Path]:
    """Let every note below a folder be of another boot, and give the files that they are about."""
    files = []
    for note in folder.rglob(f"*{SUFFIX}"):
        _, _, rest = note.read_text("utf-8").partition("\n")
        note.write_text(f"another boot\n{rest}", "utf-8")
        files.append(note.with_name(note.name.removesuffix(SUFFIX)))
    return files
