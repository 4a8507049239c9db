"""The git adapter on real repositories: what each bad state becomes, and that nobody's staged work is touched."""

import os
import signal
import subprocess
import sys
import time

import pytest

from deployctl.adapters.git import Git
from deployctl.errors import ClusterError, LockHeld, NotFound, ProjectError, Refused


def hook(work, name, text):
    path = work.root / ".git" / "hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def change(work, name="rendered/prod/a.yaml", text="a: 1\n"):
    path = work.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_exactly_the_named_files_are_committed_and_staged_work_stays(work):
    change(work)
    change(work, "mine.txt", "staged\n")
    work.git("add", "mine.txt")
    change(work, "lock/prod.lock", (work.root / "lock/prod.lock").read_text().replace('"prod"', '"prod" '))
    made = Git(work.root).commit(["rendered/prod"], "Release\n\nDeployctl-Environment: prod\n")
    assert made == work.head()
    assert work.git("show", "--name-only", "--format=", "HEAD").split() == ["rendered/prod/a.yaml"]
    assert work.git("diff", "--cached", "--name-only").split() == ["mine.txt"]
    assert work.git("diff", "--name-only").split() == ["lock/prod.lock"]


def test_nothing_to_commit_makes_no_commit(work):
    change(work)
    git = Git(work.root)
    assert git.commit(["rendered/prod", "lock/none"], "one") is not None
    before = work.head()
    assert git.commit(["rendered/prod", "lock/none"], "two") is None
    assert work.head() == before


def test_removed_files_are_removed_in_the_commit(work):
    change(work)
    git = Git(work.root)
    git.commit(["rendered/prod"], "one")
    (work.root / "rendered/prod/a.yaml").unlink()
    git.commit(["rendered/prod"], "two")
    assert git.files("HEAD", "rendered/prod") == {}
    assert git.files("HEAD~1", "rendered/prod") == {"rendered/prod/a.yaml": b"a: 1\n"}


def test_a_project_in_a_subfolder_and_an_empty_repository(tmp_path):
    root = tmp_path / "repo" / "services" / "echo"
    root.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", str(tmp_path / "repo")], check=True)
    (root / "deploy.yaml").write_text("a\n")
    git = Git(root)
    assert git.branch() == "main"
    assert git.untracked(["deploy.yaml"]) == ["deploy.yaml"]
    assert git.log("deploy.yaml") == []
    git.commit(["deploy.yaml"], "first")
    assert git.files("HEAD", "deploy.yaml") == {"deploy.yaml": b"a\n"}
    (root / "deploy.yaml").write_text("b\n")
    assert git.changed() == ["deploy.yaml"]
    assert git.changed(besides=["deploy.yaml"]) == []


def test_the_log_tells_trailers(work):
    change(work)
    git = Git(work.root)
    git.commit(["rendered/prod"], "Subject line\n\nBody: no trailer.\n\nDeployctl-Environment: prod\nDeployctl-Evidence: none\n")
    (entry,) = git.log("rendered/prod")
    assert (entry.subject, entry.by) == ("Subject line", "Ada")
    assert entry.trailers == {"Deployctl-Environment": "prod", "Deployctl-Evidence": "none"}


def test_no_repository(tmp_path):
    with pytest.raises(ProjectError) as caught:
        Git(tmp_path).branch()
    assert caught.value.code == "git-no-repository"


def test_a_detached_head(work):
    work.git("checkout", "-q", "--detach")
    with pytest.raises(ProjectError) as caught:
        Git(work.root).require_ready()
    assert caught.value.code == "git-detached"


def test_nobody_to_commit_as(work, plain_git):
    (plain_git / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    with pytest.raises(ProjectError) as caught:
        Git(work.root).require_ready()
    assert caught.value.code == "git-identity" and caught.value.why


def test_a_merge_under_way(work):
    work.git("switch", "-qc", "other")
    change(work, "model.onnx", "x")
    work.git("commit", "-qam", "x")
    work.git("switch", "-q", "main")
    change(work, "model.onnx", "y")
    work.git("commit", "-qam", "y")
    work.git("merge", "other", check=False)
    with pytest.raises(ProjectError) as caught:
        Git(work.root).require_ready()
    assert caught.value.code == "git-unfinished" and "merge" in caught.value.message


def test_a_hook_that_refuses_leaves_no_commit_and_no_staged_file(work):
    hook(work, "pre-commit", "echo the policy forbids it >&2; exit 1")
    change(work)
    before = work.head()
    with pytest.raises(Refused) as caught:
        Git(work.root).commit(["rendered/prod"], "x")
    assert caught.value.code == "git-commit-refused" and "the policy forbids it" in caught.value.why
    assert work.head() == before
    assert work.git("diff", "--cached", "--name-only") == ""
    hook(work, "pre-commit", "exit 0")
    assert Git(work.root).commit(["rendered/prod"], "x")


def test_an_ignored_folder(work):
    change(work, ".gitignore", "rendered/\n")
    change(work)
    with pytest.raises(Refused) as caught:
        Git(work.root).commit(["rendered/prod"], "x")
    assert caught.value.code == "git-ignored"


def test_another_git_at_work(work):
    change(work)
    (work.root / ".git" / "HEAD.lock").write_text("")
    with pytest.raises(LockHeld) as caught:
        Git(work.root).commit(["rendered/prod"], "x")
    assert caught.value.code == "git-busy"


def test_kill_in_the_middle_of_a_commit_leaves_none_and_the_same_call_makes_it(work):
    hook(work, "pre-commit", "touch .git/in-hook; sleep 30")
    change(work)
    before = work.head()
    code = "import sys; from deployctl.adapters.git import Git; from pathlib import Path; Git(Path(sys.argv[1])).commit(['rendered/prod'], 'x')"
    child = subprocess.Popen([sys.executable, "-c", code, str(work.root)], start_new_session=True)
    end = time.monotonic() + 60
    while not (work.root / ".git" / "in-hook").exists():
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.05)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    assert work.head() == before
    assert work.git("diff", "--cached", "--name-only") == ""
    hook(work, "pre-commit", "exit 0")
    assert Git(work.root).commit(["rendered/prod"], "x") == work.head()
    assert work.git("status", "--short") == ""


@pytest.fixture
def shared(work, tmp_path):
    """A bare repository that `work` pushes to, and a colleague's clone of it."""
    bare = tmp_path / "shared.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    work.git("remote", "add", "origin", str(bare))
    work.git("push", "-q", "-u", "origin", "main")
    other = tmp_path / "colleague"
    subprocess.run(["git", "clone", "-q", str(bare), str(other)], check=True)
    return bare, other


def test_push_and_a_colleague_who_was_faster(work, shared):
    bare, other = shared
    change(work)
    git = Git(work.root)
    git.commit(["rendered/prod"], "x")
    assert git.push() == "origin/main"
    assert subprocess.run(["git", "rev-parse", "main"], cwd=bare, capture_output=True, text=True, check=True).stdout.strip() == work.head()
    subprocess.run("git pull -q && echo b > b && git add b && git commit -qm b && git push -q", shell=True, cwd=other, check=True)
    change(work, text="a: 2\n")
    mine = git.commit(["rendered/prod"], "y")
    with pytest.raises(LockHeld) as caught:
        git.push()
    assert (caught.value.code, caught.value.exit_code) == ("git-push-behind", 7)
    assert work.head() == mine


def test_a_remote_with_a_rule(work, shared):
    hook_file = shared[0] / "hooks" / "pre-receive"
    hook_file.parent.mkdir(exist_ok=True)
    hook_file.write_text("#!/bin/sh\necho main is protected >&2\nexit 1\n")
    hook_file.chmod(0o755)
    change(work)
    git = Git(work.root)
    git.commit(["rendered/prod"], "x")
    with pytest.raises(Refused) as caught:
        git.push()
    assert caught.value.code == "git-push-refused" and "main is protected" in caught.value.why


def test_no_remote_and_one_that_is_gone(work, tmp_path):
    git = Git(work.root)
    with pytest.raises(ProjectError) as caught:
        git.push()
    assert caught.value.code == "git-no-remote"
    work.git("remote", "add", "origin", str(tmp_path / "gone.git"))
    with pytest.raises(ClusterError) as caught:
        git.push()
    assert caught.value.code == "git-push-failed"


def test_a_commit_that_nobody_knows(work):
    for name in ("nope", "--all", "HEAD~99"):
        with pytest.raises(NotFound) as caught:
            Git(work.root).resolve(name)
        assert caught.value.code == "git-revision-unknown"
    assert Git(work.root).resolve("main") == work.head()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:token@git.example.test/team/echo.git", "https://git.example.test/team/echo.git"),
        ("git@git.example.test:team/echo.git", "git@git.example.test:team/echo.git"),
        ("ssh://git@git.example.test/team/echo.git", "ssh://git@git.example.test/team/echo.git"),
    ],
)
def test_the_remote_is_told_without_credentials(work, url, shown):
    assert Git(work.root).remote() is None
    work.git("remote", "add", "origin", url)
    assert Git(work.root).remote() == shown
