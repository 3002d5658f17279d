"""Files of a working folder that tools outside the sandbox run by themselves, though nobody asked them to.

A hook of git, a task of an editor, a workflow, the configuration or instructions of another agent: whoever agrees to
many changes together has not thought of these, so no agreement to many covers them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

__all__ = ["run_outside"]

_FOLDERS = {
    *(".vscode", ".idea", ".devcontainer", ".husky", ".zed", ".fleet", ".vs", ".mise", ".direnv"),
    *(".helix", ".vim", ".nvim"),  # `languages.toml` and `coc-settings.json` name programs that check a file
    *(".claude", ".cursor", ".codex", ".gemini", ".windsurf", ".continue", ".roo", ".kiro", ".opencode"),
    *(".amazonq", ".augment", ".clinerules", ".crush", ".goose", ".junie", ".qwen", ".trae"),
    *(".agents", ".agent", ".openhands", ".factory", ".kilocode", ".cline", ".copilot"),
    *(".hg", ".jj", ".sl"),  # their configuration names programs, as git's does
    # Run where they are pushed to, as `.github/workflows`.
    *(".circleci", ".forgejo", ".gitea", ".gitlab", ".woodpecker", ".buildkite", ".semaphore", ".tekton", ".builds"),
    ".ssh",  # a working folder may be where one's own dotfiles lie
    ".cargo",  # an editor's language server runs cargo by itself, and that whatever is named in here
}
_FILES = {
    *(".envrc", ".mise.toml", "mise.toml", ".tool-versions", ".devcontainer.json"),
    *(".mise.local.toml", "mise.local.toml"),
    *(".pre-commit-config.yaml", ".overcommit.yml", ".huskyrc", ".huskyrc.js"),
    *(
        f"{dot}lefthook{local}.{form}"
        for dot in ("", ".")
        for local in ("", "-local")
        for form in ("yml", "yaml", "toml", "json")
    ),
    *(".mcp.json", "opencode.json", "crush.json", ".aider.conf.yml", ".cursorrules", ".windsurfrules", ".goosehints"),
    *("agent.md", "agents.md", "agents.override.md", "claude.md", "claude.local.md", "gemini.md", "qwen.md"),
    "copilot-instructions.md",
    *(".exrc", ".nvimrc", ".nvim.lua", ".vimrc", ".lvimrc", ".gdbinit", ".lldbinit"),
    *(".dir-locals.el", ".dir-locals-2.el"),
    "rust-toolchain.toml",  # may name a folder, whose cargo is run from then on
    *(".yarnrc.yml", ".yarnrc", ".npmrc", ".pnpmfile.cjs", "bunfig.toml", "creto.toml"),
    *(".env", ".autoenv", ".autoenv.zsh"),  # shells read these where one goes into the folder
    *("flake.nix", "shell.nix", "devenv.nix", "devbox.json"),  # so they do these, by way of an `.envrc` that is there
    # A home's own, which its links lead to where one keeps them in a repository.
    *(
        ".bashrc",
        ".bash_profile",
        ".bash_login",
        ".bash_logout",
        ".bash_aliases",
        ".profile",
        ".xprofile",
        ".gitconfig",
    ),
    *(".zshrc", ".zshenv", ".zprofile", ".zlogin", ".zlogout", ".kshrc", ".cshrc", ".tcshrc", ".login", "config.fish"),
    *(".rprofile", ".renviron", ".ghci", ".pryrc", ".pdbrc", ".iex.exs"),  # where such an interpreter is started
    # What an editor runs when a file is opened or saved: a checker's plugins, a crate's build script, Haskell's cradle.
    *(".pylintrc", "pylintrc", "mypy.ini", ".mypy.ini", ".rubocop.yml", ".clangd", "hie.yaml", "build.rs"),
    *(".flake8", "setup.cfg", "tox.ini", ".ycm_extra_conf.py", ".luarc.json", "mix.exs", ".formatter.exs"),
    *(".gitlab-ci.yml", ".travis.yml", "jenkinsfile", "azure-pipelines.yml"),  # run where they are pushed to
    *("bitbucket-pipelines.yml", ".drone.yml", ".drone.star", ".woodpecker.yml", ".cirrus.yml", ".cirrus.star"),
    *("appveyor.yml", ".appveyor.yml", "buildspec.yml", "cloudbuild.yaml", ".build.yml", ".gitpod.yml", "netlify.toml"),
}
_BEGINNINGS = tuple(
    f"{dot}{tool}{rest}"
    for tool in ("eslint", "prettier", "stylelint", "tailwind", "postcss", "svelte", "graphql")
    for dot, rest in ((".", "rc"), ("", ".config."))
)
# Workflows, and what its agent is told and runs; templates and owners are not among these.
_GITHUBS = {"workflows", "actions", "hooks", "agents", "skills", "instructions", "prompts", "chatmodes", "copilot"}
_ENDINGS = {".code-workspace", ".sublime-project"}
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


def run_outside(paths: Iterable[str], workdir: Path | None = None) -> set[str]:
    """Those of the changed paths that tools outside the sandbox run by themselves.

    Args:
        paths: Every changed path of the working folder, relative to it.
        workdir: The folder as it lies: what is in it already may make a changed file one of these.

    Example:
        >>> sorted(run_outside([".git/hooks/pre-commit", ".git/index", "src/main.py", ".vscode/tasks.json"]))
        ['.git/hooks/pre-commit', '.vscode/tasks.json']
        >>> sorted(run_outside(["docs/AGENTS.md", ".cargo/config.toml", "Cargo.toml", "creto.toml"]))
        ['.cargo/config.toml', 'creto.toml', 'docs/AGENTS.md']
    """
    found = [(path, PurePosixPath(path)) for path in paths]
    # A folder with a HEAD of its own is a repository by any name: git takes it for one.
    repositories = {place.parent for _, place in found if place.name.casefold() == "head"}
    if workdir is not None:
        above = {folder for _, place in found for folder in place.parents if ".git" not in folder.parts}
        repositories |= {folder for folder in above if os.path.lexists(workdir / folder / "HEAD")}
    return {path for path, place in found if _runs(place, repositories)}


def _runs(place: PurePosixPath, repositories: set[PurePosixPath]) -> bool:
    # Some file systems do not tell capitals apart, and git does not there.
    names = [part.casefold() for part in place.parts]
    if not _FOLDERS.isdisjoint(names) or names[-1] in _FILES or place.suffix.casefold() in _ENDINGS:
        return True
    if names[-1].startswith(_BEGINNINGS) or (names[0] == ".github" and not _GITHUBS.isdisjoint(names[1:2])):
        return True
    for depth, name in enumerate(names):
        if name == ".git" and (depth == len(names) - 1 or not _is_gits_own(place.parts[depth + 1 :])):
            return True
    if names[-1] == "head" and ".git" not in names:
        return True  # with what lay there before it makes a repository
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
