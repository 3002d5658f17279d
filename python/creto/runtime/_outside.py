"""Files of a working folder that tools outside the sandbox run by themselves, though nobody asked them to.

A hook of git, a task of an editor, the configuration or instructions of another agent: whoever agrees to many changes
together has not thought of these, so no agreement to many covers them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

__all__ = ["run_outside"]

_FOLDERS = {
    *(".vscode", ".idea", ".devcontainer", ".husky", ".zed", ".fleet", ".vs", ".mise", ".direnv"),
    *(".claude", ".cursor", ".codex", ".gemini", ".windsurf", ".continue", ".roo", ".kiro", ".opencode"),
    ".cargo",  # an editor's language server runs cargo by itself, and that whatever is named in here
}
_FILES = {
    *(".envrc", ".mise.toml", "mise.toml", ".tool-versions", ".devcontainer.json"),
    *(".pre-commit-config.yaml", "lefthook.yml", "lefthook.yaml", ".lefthook.yml"),
    *(".mcp.json", "opencode.json", ".aider.conf.yml", "agents.md", "claude.md", "gemini.md", ".cursorrules"),
    *(".exrc", ".nvimrc", ".nvim.lua", ".vimrc", ".lvimrc", ".dir-locals.el", ".gdbinit", ".lldbinit"),
    *(".yarnrc.yml", "creto.toml"),
}
_ENDINGS = {".code-workspace"}
# What git keeps and never runs. Everything else in its folder is code, or says where code is.
_GITS_OWN = {"objects", "refs", "logs", "lfs"}
_GITS_OWN_FILES = {
    "index",
    "HEAD",
    "packed-refs",
    "description",
    "shallow",
    "COMMIT_EDITMSG",
    "MERGE_MSG",
    "MERGE_MODE",
}


def run_outside(paths: Iterable[str]) -> set[str]:
    """Those of the changed paths that tools outside the sandbox run by themselves.

    Args:
        paths: Every changed path of the working folder, relative to it.

    Example:
        >>> sorted(run_outside([".git/hooks/pre-commit", ".git/index", "src/main.py", ".vscode/tasks.json"]))
        ['.git/hooks/pre-commit', '.vscode/tasks.json']
        >>> sorted(run_outside(["docs/AGENTS.md", ".cargo/config.toml", "Cargo.toml", "creto.toml"]))
        ['.cargo/config.toml', 'creto.toml', 'docs/AGENTS.md']
    """
    found = [(path, PurePosixPath(path)) for path in paths]
    # A folder with a HEAD of its own is a repository by any name: git takes it for one.
    repositories = {place.parent for _, place in found if place.name.casefold() == "head"}
    return {path for path, place in found if _runs(place, repositories)}


def _runs(place: PurePosixPath, repositories: set[PurePosixPath]) -> bool:
    # Some file systems do not tell capitals apart, and git does not there.
    names = [part.casefold() for part in place.parts]
    if not _FOLDERS.isdisjoint(names) or names[-1] in _FILES or place.suffix.casefold() in _ENDINGS:
        return True
    for depth, name in enumerate(names):
        if name == ".git" and (depth == len(names) - 1 or not _is_gits_own(place.parts[depth + 1 :])):
            return True
    return any(
        len(place.parts) > len(above.parts) and not _is_gits_own(place.parts[len(above.parts) :], bare=True)
        for above in repositories & set(place.parents)
    )


def _is_gits_own(parts: tuple[str, ...], *, bare: bool = False) -> bool:
    first, last = parts[0], parts[-1]
    if bare and not (first in {"config", "config.worktree", "commondir", "gitdir"} or first == "hooks"):
        return True  # a project's own file, beside one that is called HEAD
    return (
        first in _GITS_OWN
        or (len(parts) == 1 and (first in _GITS_OWN_FILES or first.endswith("_HEAD")))
        or (first == "hooks" and (len(parts) == 1 or last.endswith(".sample")))
        or parts == ("info",)
        or parts == ("info", "exclude")
    )
