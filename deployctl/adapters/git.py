"""A git repository through the `git` program: what enters are paths and messages, what leaves are commits, texts and errors of ours.

A commit is built in an index of its own, so that what a person has staged is neither taken along nor lost, and a kill at any
moment leaves either no commit or a whole one. Hooks, signing and credentials are git's own business. Never asks on a
terminal for a password. Refuses to know what is committed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from deployctl.core.gitops import Commit, parse_log
from deployctl.errors import ClusterError, DeployctlError, LockHeld, MachineError, NotFound, ProjectError, Refused

_READ_S, _HOOKS_S, _NETWORK_S = 60.0, 900.0, 300.0
_UNFINISHED = {"MERGE_HEAD": "merge", "rebase-merge": "rebase", "rebase-apply": "rebase", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert"}
_LOG = "%H%x1f%ct%x1f%an%x1f%s%x1f%(trailers:only,unfold)%x1e"


class Git:
    """The repository that `folder` lies in; every path is relative to `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    def branch(self) -> str:
        """The branch that is checked out.

        Raises:
            MachineError: no git (`git-missing`); ProjectError: no repository (`git-no-repository`) or no branch (`git-detached`).
        """
        self._inside()
        code, name, _ = self._try("symbolic-ref", "--quiet", "--short", "HEAD")
        if code == 0:
            return name.strip()
        raise ProjectError(
            "no branch is checked out (detached HEAD), so a commit would belong to nothing",
            hint="git switch main   (or the branch that the change is for)",
            code="git-detached",
        )

    def require_ready(self) -> None:
        """Refuse what would make a commit fail or say too much, before anything is written.

        Raises:
            ProjectError: as `branch`, or nobody to sign as (`git-identity`), or a merge or rebase is under way (`git-unfinished`).
        """
        self.branch()
        git_dir = self._git_dir()
        for name, what in _UNFINISHED.items():
            if (git_dir / name).exists():
                hint = f"finish it (git {what} --continue) or give it up (git {what} --abort)"
                raise ProjectError(f"a {what} is under way in this repository", hint=hint, code="git-unfinished")
        code, _, words = self._try("var", "GIT_COMMITTER_IDENT")
        if code != 0:
            hint = 'git config user.name "…" and git config user.email "…"'
            raise ProjectError("git does not know who commits", why=_last(words), hint=hint, code="git-identity")

    def changed(self, *, besides: Sequence[str] = ()) -> list[str]:
        """Tracked files of the folder that differ from the last commit, except below `besides`."""
        text = self._git("status", "--porcelain=v1", "-z", "--untracked-files=no", "--no-renames", "--", ".", *(f":(exclude){p}" for p in besides))
        prefix = self._git("rev-parse", "--show-prefix").strip()
        return sorted(entry[3:].removeprefix(prefix) for entry in text.split("\0") if entry)

    def untracked(self, paths: Sequence[str]) -> list[str]:
        """Those of the files that git does not follow."""
        known = set(self._git("ls-files", "-z", "--", *paths).split("\0"))
        return [p for p in paths if p not in known]

    def commit(self, paths: Sequence[str], message: str) -> str | None:
        """Commit the present state of exactly these files and folders; None where that is what the last commit has.

        Raises:
            Refused: a hook refused, or signing failed (`git-commit-refused`), or git ignores a path (`git-ignored`).
            LockHeld: another git is at work (`git-busy`).
        """
        head = self._head()
        present = [p for p in paths if (self._folder / p).exists() or (head and self._git("ls-tree", "-r", "--name-only", head, "--", p))]
        if not present:
            return None
        with self._own_index() as env:
            self._git("read-tree", *([head] if head else ["--empty"]), env=env)
            self._add(present, env)
            if head and self._try("diff", "--cached", "--quiet", head, "--", env=env)[0] == 0:
                return None
            code, _, words = self._try(
                "commit", "--quiet", "--cleanup=whitespace", "--file=-", env=env, text=message, timeout_s=_HOOKS_S
            )  # hooks run with this index, as they do for `git commit --only`
            if code != 0:
                raise self._failed_commit(words)
        self._try("reset", "--quiet", "--", *present)  # the person's own index learns of the new commit; what else is staged stays
        return self._head()

    def push(self) -> str:
        """Push the checked-out branch to where it comes from, else to `origin`; the remote and branch as text.

        Raises:
            ProjectError: no remote (`git-no-remote`); LockHeld: somebody pushed first (`git-push-behind`, exit 7).
            Refused, ClusterError: the remote refuses (`git-push-refused`), or cannot be reached or does not know us (`git-push-failed`).
        """
        branch = self.branch()
        code, name, _ = self._try("config", f"branch.{branch}.remote")
        remote = name.strip() if code == 0 else "origin"
        if remote not in self._git("remote").split():
            raise ProjectError("there is no remote to push to", hint="git remote add origin URL", code="git-no-remote")
        code, out, words = self._try("push", "--porcelain", remote, f"HEAD:refs/heads/{branch}", timeout_s=_NETWORK_S)
        if code != 0:
            raise _failed_push(f"{remote}/{branch}", out + words)
        return f"{remote}/{branch}"

    def remote(self) -> str | None:
        """Address of `origin` without credentials; None without one."""
        self._inside()
        code, out, _ = self._try("remote", "get-url", "origin")
        return _without_credentials(out.strip()) if code == 0 else None

    def log(self, path: str) -> list[Commit]:
        """Commits of the present branch that changed `path`, newest first."""
        return parse_log(self._git("log", f"--format={_LOG}", "--", path)) if self._head() else []

    def resolve(self, revision: str) -> str:
        """Full id of a commit that a person named.

        Raises:
            NotFound: no such commit (`git-revision-unknown`).
        """
        self._inside()
        code, out, _ = self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        if code != 0:
            hint = "git fetch   (a shallow clone knows few commits: fetch-depth: 0 in CI)"
            raise NotFound(f"git knows no commit {revision!r}", hint=hint, code="git-revision-unknown")
        return out.strip()

    def files(self, revision: str, path: str) -> dict[str, bytes]:
        """Every file at or below `path` as it was in a commit, by path."""
        names = [n for n in self._git("ls-tree", "-r", "-z", "--name-only", revision, "--", path).split("\0") if n]
        return {name: self._bytes("show", f"{revision}:./{name}") for name in names}

    def _inside(self) -> None:
        code, _, words = self._try("rev-parse", "--git-dir")
        if code != 0:
            if "dubious ownership" in words:
                hint = f"git config --global --add safe.directory {self._folder}"
                raise ProjectError("git refuses a repository that another user owns", why=_last(words), hint=hint, code="git-no-repository")
            raise ProjectError(f"{self._folder} is in no git repository", hint="git init, then commit deploy.yaml", code="git-no-repository")

    def _head(self) -> str | None:
        code, out, _ = self._try("rev-parse", "--verify", "--quiet", "HEAD")
        return out.strip() if code == 0 else None

    def _git_dir(self) -> Path:
        return (self._folder / self._git("rev-parse", "--git-dir").strip()).resolve()

    def _add(self, paths: Sequence[str], env: dict[str, str]) -> None:
        code, _, words = self._try("add", "--all", "--", *paths, env=env)
        if code == 0:
            return
        if "ignored by" in words:
            hint = f"take {paths[0]} out of .gitignore; a controller reads only what is committed"
            raise Refused("git ignores what is to be committed", why=words.strip()[:300], hint=hint, code="git-ignored")
        raise self._failed_commit(words)

    def _failed_commit(self, words: str) -> DeployctlError:
        if ".lock'" in words and "File exists" in words:
            hint = "wait for it, or remove the lock file that git names if its process is gone; then repeat the command"
            return LockHeld("another git is at work in this repository", why=_last(words), hint=hint, code="git-busy")
        return Refused(
            "git refused the commit; the files are written and nothing is committed",
            why=" ".join(words.split())[-400:] or "a hook ended with an error and said nothing",
            hint="mend what it names and run the same command again",
            code="git-commit-refused",
        )

    @contextlib.contextmanager
    def _own_index(self) -> Iterator[dict[str, str]]:
        path = self._git_dir() / f"deployctl-index.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            yield {"GIT_INDEX_FILE": str(path)}
        finally:
            path.unlink(missing_ok=True)
            path.with_name(f"{path.name}.lock").unlink(missing_ok=True)

    def _git(self, *words: str, env: dict[str, str] | None = None) -> str:
        code, out, err = self._try(*words, env=env)
        if code != 0:
            raise ProjectError(f"git {words[0]} failed", why=" ".join(err.split())[-400:], hint="mend what git names", code="git-failed")
        return out

    def _bytes(self, *words: str) -> bytes:
        code, out, err = self._run(words, None, None, _READ_S)
        if code != 0:
            raise ProjectError(f"git {words[0]} failed", why=" ".join(err.split())[-400:], hint="mend what git names", code="git-failed")
        return out

    def _try(self, *words: str, env: dict[str, str] | None = None, text: str | None = None, timeout_s: float = _READ_S) -> tuple[int, str, str]:
        code, out, err = self._run(words, env, text, timeout_s)
        return code, out.decode("utf-8", "replace"), err

    def _run(self, words: Sequence[str], env: dict[str, str] | None, text: str | None, timeout_s: float) -> tuple[int, bytes, str]:
        program = shutil.which("git")
        if program is None:
            raise MachineError("git is not installed", hint="install git, and run the same command again", code="git-missing")
        quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_LITERAL_PATHSPECS": "0", "LC_ALL": "C", "GIT_EDITOR": "true", **(env or {})}
        quiet.setdefault("GIT_SSH_COMMAND", os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes"))
        try:
            done = subprocess.run(
                [program, *words],
                cwd=self._folder,
                env={**os.environ, **quiet},
                input=(text or "").encode(),
                capture_output=True,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            message = f"git {words[0]} gave no answer within {timeout_s:.0f} s"
            raise ClusterError(message, hint="check the network, or the hook that hangs, and repeat the command", code="git-timeout") from error
        return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace")


def _failed_push(where: str, words: str) -> DeployctlError:
    why = " ".join(words.split())[-400:]
    if "(fetch first)" in words or "(non-fast-forward)" in words or "(stale info)" in words:
        return LockHeld(
            f"{where} has commits that are not here: somebody pushed first",
            why="the commit is made here and not pushed",
            hint="git pull --rebase, look at what came, then repeat the command with --push",
            code="git-push-behind",
            exit_code=7,
        )
    if "[remote rejected]" in words:
        hint = "push a branch and open a pull request: git push origin HEAD:refs/heads/NAME"
        return Refused(f"{where} refuses the push", why=why, hint=hint, code="git-push-refused")
    denied = any(w in words for w in ("Authentication failed", "Permission denied", "could not read Username", "403", "401"))
    return ClusterError(
        f"{where} {'does not accept your credentials' if denied else 'cannot be reached'}; the commit is made here and not pushed",
        why=why,
        hint="git push   (once that works)",
        code="git-push-failed",
        exit_code=3 if denied else 4,
    )


def _without_credentials(url: str) -> str:
    """`https://user:token@host/x` as `https://host/x`; an ssh user is no secret and stays."""
    scheme, mark, rest = url.partition("://")
    if not mark or scheme not in ("http", "https"):
        return url
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def _last(words: str) -> str:
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return next((line for line in lines if line.startswith("fatal:")), lines[-1] if lines else "").removeprefix("fatal: ")
