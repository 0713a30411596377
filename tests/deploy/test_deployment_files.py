"""No container engine runs in the tests, so the files are held against what they name."""

import importlib
import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from store.settings import Settings
from worker.watch import MAX_THREADS

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = ["migrate", "api", "control", "worker", "checks", "worker-gpu"]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Instructions of every build stage, those of the stages it builds on included."""
    found: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for line in DOCKERFILE.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = list(found.get(base, []))
        else:
            current.append((word, rest))
    return found


def commands() -> dict[str, list[str]]:
    """Every command that starts one of our processes, from both files."""
    named = {f"Dockerfile:{n}": s for n, s in stages().items()}
    result = {
        place: json.loads(dict(steps)["CMD"])
        for place, steps in named.items()
        if "CMD" in dict(steps)
    }
    for name in OURS:
        if "command" in COMPOSE["services"][name]:
            result[f"compose:{name}"] = COMPOSE["services"][name]["command"]
    return result


def test_compose_file_fits_the_compose_specification():
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec",
         str(ROOT / "docker-compose.yml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_build_target_exists_and_is_used():
    targets = {COMPOSE["services"][n]["build"]["target"] for n in OURS}
    assert targets == {"api", "worker-cpu", "worker-gpu"}
    assert targets <= stages().keys()


@pytest.mark.parametrize("target", ["api", "worker-cpu", "worker-gpu"])
def test_images_run_as_a_user_without_privileges(target: str):
    steps = stages()[target]
    users = [rest for word, rest in steps if word == "USER"]
    assert users
    assert users[-1] not in {"root", "0"}
    assert steps.index(("USER", users[-1])) > max(i for i, s in enumerate(steps) if s[0] == "RUN")


@pytest.mark.parametrize(("place", "command"), commands().items())
def test_every_command_names_something_that_exists(place: str, command: list[str]):
    if command[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(command[2]), place
    elif command[0] == "celery":
        module = command[command.index("-A") + 1]
        app = importlib.import_module(module).app
        queues = command[command.index("-Q") + 1].split(",")
        assert set(queues) <= {q.name for q in app.conf.task_queues}, place
        assert command[command.index("--pool") + 1] == "prefork"
        assert command[command.index("--concurrency") + 1] == "1"
    else:
        pytest.fail(f"{place}: a command this test does not know: {command}")


def test_every_variable_is_a_setting():
    known = {f"SECATEUR_{name}".upper() for name in Settings.model_fields}
    used = {
        key for n in OURS for key in COMPOSE["services"][n]["environment"]
        if key.startswith("SECATEUR_")
    }  # fmt: skip
    for line in re.findall(r"^ENV (.*)$", DOCKERFILE, re.MULTILINE):
        used |= set(re.findall(r"(SECATEUR_\w+)=", line))
    assert used
    assert used <= known


def test_every_path_and_extra_exists():
    for steps in stages().values():
        for word, rest in steps:
            if word == "COPY":
                for source in rest.split()[:-1]:
                    assert (ROOT / source).exists(), source
            for extras in re.findall(r"'\.\[([\w,]+)\]'", rest) if word == "RUN" else []:
                assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
    packages = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()} - {"tests"}
    for target in ["api", "worker-cpu", "worker-gpu"]:
        copied = {r.split()[0] for w, r in stages()[target] if w == "COPY" and len(r.split()) == 2}
        assert {"api", "pruning", "secateur", "store", "worker"} <= copied & packages, target


def test_services_wait_for_what_they_need_and_volumes_exist():
    services = COMPOSE["services"]
    for name, service in services.items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in services, name
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], needed
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"], name


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_service_is_hardened(name: str):
    service = COMPOSE["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert service["mem_limit"]
    assert 0 < service["pids_limit"] <= 2 * MAX_THREADS
    if name in OURS:
        return  # its image has a user without privileges
    user, _, group = service["user"].partition(":")
    assert int(user) > 0
    assert int(group) > 0


@pytest.mark.parametrize("name", ["worker", "checks", "worker-gpu"])
def test_workers_can_have_the_threads_that_a_job_may_have(name: str):
    assert COMPOSE["services"][name]["pids_limit"] > MAX_THREADS


def test_jobs_are_closed_off_unless_the_operator_says_otherwise():
    for name in OURS:
        wanted = COMPOSE["services"][name]["environment"]["SECATEUR_SANDBOX"]
        assert wanted == "${SECATEUR_SANDBOX:-required}"
    assert Settings().sandbox == "best"


def test_what_ends_is_not_started_again():
    restarts = {name: s["restart"] for name, s in COMPOSE["services"].items()}
    assert restarts.pop("migrate") == "no"
    assert set(restarts.values()) == {"unless-stopped"}


def test_redis_keeps_its_data_and_asks_for_a_password():
    command = " ".join(COMPOSE["services"]["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--requirepass" in command
    assert "REDIS_PASSWORD" in COMPOSE["services"]["worker"]["environment"]["SECATEUR_REDIS_URL"]
