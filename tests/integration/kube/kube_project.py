"""A project folder with an environment on the rig, driven by the real command line."""

import json
import os
import shutil
import subprocess

from verbs_kit import DEPLOYCTL, LiveProject, run_in

from deployctl.testing import kube

YAML = """\
version: 1
name: sleeper
model: {{source: "triton:repo", sample: samples.jsonl}}
slo: {{latency: {{p99: 500ms}}, errors: 1%}}
traffic: {{rate: 40/s}}
environments:
  prod:
    on: kubernetes
    context: {context}
    namespace: {namespace}
    pool: {pool}
    store: {store}
    image: {image}
    loadtest_image: {image}
    limits: {{replicas: {replicas}}}
    scaling: {{target: {target}}}
{more}"""


def template(root):
    """A project whose model is packaged already, to be copied: the proof in a real Triton takes seconds."""
    project = LiveProject(root)
    assert project.run("package", ok=None).code == 0
    return root


class ClusterProject:
    """One project and one namespace; `values` replace what deploy.yaml says of the environment `prod`, `more` is further lines of it."""

    def __init__(self, plane, namespace, root, made_from, **values):
        self.plane, self.namespace, self.root = plane, namespace, root
        shutil.copytree(made_from, root, dirs_exist_ok=True)
        self.values = {"context": "admin", "namespace": namespace, "pool": "gpu-l4", "store": "https://models.example.test/prod", "image": kube.IMAGE,
                       "replicas": 1, "target": "0.7", "more": ""} | values  # fmt: skip
        self.kubeconfig = plane.kubeconfig
        self.write()

    def write(self, **values):
        """deploy.yaml anew."""
        self.values |= values
        (self.root / "deploy.yaml").write_text(YAML.format(**self.values))

    def model(self, t0_s):
        """Another model: other content, other bundle."""
        LiveProject.model(self, t0_s)

    def through(self, url):
        """Reach the API server at another address."""
        config = json.loads(self.plane.kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": url}
        self.kubeconfig = self.root / "kubeconfig.json"
        self.kubeconfig.write_text(json.dumps(config))

    def run(self, *words, ok=(0,), root=None):
        """One command to its end, in this process; `ok` None takes any exit code."""
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(self.kubeconfig)
        try:
            ran = run_in(root or self.root, *words)
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before
        assert ok is None or ran.code in ok, f"{words}: {ran}"
        return ran

    def start(self, *words):
        """One command as a process of its own group."""
        return subprocess.Popen(
            [DEPLOYCTL, "-C", str(self.root), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "KUBECONFIG": str(self.kubeconfig)},
        )

    def up(self, *words, ok=(0,)):
        return self.run("up", "-e", "prod", "--yes", "--unverified", *words, ok=ok)

    def status(self):
        return self.run("status", "-e", "prod", "-o", "json", ok=None).data

    def revisions(self):
        """(revision, action) of every release."""
        return [(r["revision"], r["action"]) for r in self.run("history", "-e", "prod", "-o", "json").data["items"]]

    def objects(self, *, records=False):
        """kind/name of every object of ours in the namespace, by a client of the rig's own."""
        paths = {"/api/v1": ("configmaps", "services", "serviceaccounts"), "/apis/apps/v1": ("deployments", "replicasets"),
                 "/apis/autoscaling/v2": ("horizontalpodautoscalers",), "/apis/networking.k8s.io/v1": ("networkpolicies",),
                 "/apis/policy/v1": ("poddisruptionbudgets",)}  # fmt: skip
        query = "labelSelector=app.kubernetes.io/managed-by%3Ddeployctl"
        if not records:
            query += ",app.kubernetes.io/component+notin+(release,holds,lease)"
        lists = ((kind, self.plane.get(f"{group}/namespaces/{self.namespace}/{kind}?{query}")) for group, kinds in paths.items() for kind in kinds)
        return {f"{kind}/{item['metadata']['name']}" for kind, found in lists for item in found["items"]}

    def nothing_left_over(self):
        """Whether all that exists is on the inventory; nobody has to unlock anything."""
        book = self.plane.get(f"/api/v1/namespaces/{self.namespace}/configmaps/deployctl-sleeper-prod")
        live = {o for o in self.objects() if not o.startswith("replicasets/") and o != "configmaps/deployctl-sleeper-prod"}
        if book is None:
            return live == set()
        on_record = {r["name"] for r in json.loads(book["data"]["inventory.json"])["refs"]}
        return {o.partition("/")[2] for o in live} <= on_record
