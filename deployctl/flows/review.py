"""diff --base: what merging the present tree would change in an environment, against a commit. Runs no user code, asks no cluster."""

from __future__ import annotations

from deployctl.core.gitops import plan_from
from deployctl.core.project import Project
from deployctl.core.review import Review, object_changes, rows
from deployctl.flows.render import HEADER, render
from deployctl.ports import Repository, Toolbox


def review(project: Project, env: str, tools: Toolbox, repository: Repository, base: str) -> Review:
    """Compare what deploy.yaml and the lock say now with what is rendered in a commit.

    Args:
        project: deploy.yaml, completed.
        env: an environment on Kubernetes.
        tools: ports.
        repository: version control of the project.
        base: commit, branch or tag.

    Raises:
        NotFound: no such commit (`git-revision-unknown`); else as `flows.render.render`.
    """
    place, workspace = project.environment(env), tools.workspace
    commit = repository.resolve(base)
    rendered = render(project, env, tools)
    plan_name = workspace.plan(env).relative_to(workspace.root).as_posix()
    before = plan_from(repository.files(commit, plan_name).get(plan_name))
    there = {n.removeprefix(f"{place.folder}/"): d.decode("utf-8", "replace") for n, d in repository.files(commit, place.folder).items()}
    plan = rendered.inputs.plan
    return Review(
        service=plan.service,
        env=env,
        base=base,
        rows=rows(before, plan, place.platform),
        objects=object_changes({n: t for n, t in there.items() if t.startswith(HEADER)}, rendered.files),
        proven=plan.evidence is not None,
        unresolved=rendered.unresolved,
        findings=tuple(f for f in rendered.findings if f.severity != "ok"),
        notices=rendered.notices,
    )
