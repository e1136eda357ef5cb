"""Checks of the project: `nox` runs all that have to pass, `nox -s NAME` one of them.

Versions and dependency groups are only in `pyproject.toml`. Arguments after `--` are passed to the tool.
"""

import json
import os
import re
import shutil
import subprocess
import tarfile
import textwrap
import time
import zipfile
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.2"
nox.options.sessions = ["check"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")
FLAKE8 = [
    # Rules that ruff does not have, without those that flake8-async leaves off by default.
    "--select=ASYNC1,ASYNC2,ASYNC3",
    # A rule that is only ignored is checked all the same, which takes long.
    "--enable=ASYNC1,ASYNC2,ASYNC3",
    "--disable=ASYNC114,ASYNC124",
]


LOCKS = {".ci/requirements.lock": ("build",), ".ci/tests.lock": ("build", "test")}
"""Lock files of the package and of its tests, by version and hash, with their dependency groups."""
DIST = Path("dist")
"""Folder that `package` writes the wheel and the source distribution into."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
"""Commands of a browser, as package managers install them."""
BUILDERS = ("podman", "docker")
"""Programs that build images and run them, the first that works."""
PARALLEL = ("-n", "auto", "--dist", "worksteal")
"""Parallel tests. Distributed by groups, the tests of a dead worker were lost, and the run never ended."""


def install(session: nox.Session, *groups: str) -> None:
    """Install the package from the tree, and dependency groups; `check` has already installed everything."""
    # The tests start hundreds of processes. Many containers switch bytecode off, and then each process would
    # compile all its imports again.
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    if session.name != "check":
        # Modules are compiled when they are imported; most of them never are.
        session.install("--no-compile", "-e", ".", *nox.project.dependency_groups(PROJECT, *groups))


def async_files(*folders: str) -> list[str]:
    """List the files with asynchronous code: flake8 checks nothing else."""
    files = (file for folder in folders for file in sorted(Path(folder).rglob("*.py")))
    return [str(file) for file in files if "async " in file.read_text()]


@nox.session
def check(session: nox.Session) -> None:
    """Run all that has to pass: lint, types, tests, integration and the page, in one environment."""
    if session.posargs:
        session.error("name the session for these arguments: nox -s NAME -- ...")
    groups = nox.project.dependency_groups(PROJECT, "lint", "type", "test", "bench", "browser")
    session.install("--no-compile", "-e", ".", *groups)
    failed = []
    parts = {"lint": lint, "types": types, "tests": tests, "integration": integration, "browser": browser}
    for name, part in parts.items():
        began = time.monotonic()
        try:
            part(session)
        except CommandFailed:
            failed.append(name)
        session.log(f"{name}: {time.monotonic() - began:.0f} s")
    if failed:
        session.error(f"failed: {', '.join(failed)}")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, common mistakes, async mistakes, and the direction of imports."""
    install(session, "lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    # Half a second a file: of the tests only Ruff's rules for asynchronous code are asked.
    session.run("flake8", *FLAKE8, *async_files("scheduler"))
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check types with mypy, strict."""
    install(session, "type", "bench")
    session.run("mypy", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests without a broker, on all cores."""
    install(session, "test")
    session.run("pytest", *PARALLEL, "-m", "not integration and not fuzz and not browser", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Run the integration tests: a nats-server on a free port, processes that are killed."""
    install(session, "test")
    if session.posargs:
        session.run("pytest", "-m", "integration", *session.posargs)
        return
    # They wait more than they work.
    session.run("pytest", "-n", "4", "--dist", "worksteal", "-m", "integration and not alone and not long")
    session.run(
        "pytest",
        "-n",
        "4",
        "--maxschedchunk",
        "1",
        "-m",
        "integration and long and not siege and not upgrade",
    )
    session.run("pytest", "-m", "integration and alone")


@nox.session
def browser(session: nox.Session) -> None:
    """Open the page in an installed Chromium; SCREENSHOTS=1 and SESSION=1 take the documents' pictures."""
    install(session, "browser")
    if not any(shutil.which(name) for name in CHROMIUM):
        missing = f"NO PAGE WAS TRIED IN A BROWSER: none of {', '.join(CHROMIUM)} is installed"
        if session.name != "check":
            session.skip(missing)
        session.warn(missing)
        return
    if session.posargs:
        session.run("pytest", "tests/browser", *session.posargs)
        return
    session.run("pytest", "tests/browser", "-n", "2", "--dist", "loadfile", "-m", "browser and not alone")
    session.run("pytest", "tests/browser", "-m", "browser and alone")


@nox.session
def siege(session: nox.Session) -> None:
    """Kill and stop schedulers and brokers: DURABLE_KILLS (50), and for DURABLE_BUILDS (10,000) builds."""
    install(session, "test")
    sizes = {"DURABLE_KILLS": "50", "DURABLE_BUILDS": "10000"}
    env = {name: os.environ.get(name, size) for name, size in sizes.items()}
    session.run("pytest", "-s", "-m", "siege", *session.posargs, env=env)


@nox.session
def upgrade(session: nox.Session) -> None:
    """Run earlier versions, built from the repository's history, and one to come beside this one."""
    install(session, "test")
    session.run("pytest", "-n", "2", "--maxschedchunk", "1", "-m", "upgrade", *session.posargs)


@nox.session
def simulation(session: nox.Session) -> None:
    """Simulate 20,000 seeds (`tests` runs 200), or those in SIMULATION_SEEDS."""
    install(session, "test")
    seeds = os.environ.get("SIMULATION_SEEDS", "0:20000")
    session.run("pytest", *PARALLEL, "tests/simulation", *session.posargs, env={"SIMULATION_SEEDS": seeds})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Feed random builds, replies and templates for a minute."""
    install(session, "test")
    session.run("pytest", "-m", "fuzz", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure speed against the bare client loop of the same run, or with `-- --against REV` a commit."""
    install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def generate(session: nox.Session) -> None:
    """Write the files that are made of the code: the tables in `settings.md`, the schemas."""
    install(session)
    session.run("python", "-m", "scheduler.commands.generated")


@nox.session
def package(session: nox.Session) -> None:
    """Build wheel and source distribution into `dist`, and run a build with each, freshly installed."""
    session.install("build")
    for old in DIST.glob(f"{PROJECT['project']['name'].replace('-', '_')}-*"):
        old.unlink()
    # The wheel is made of the source distribution, which so proves to be complete.
    session.run("python", "-m", "build", "--outdir", str(DIST))
    [wheel], [source] = sorted(DIST.glob("*.whl")), sorted(DIST.glob("*.tar.gz"))
    _check_contents(session, wheel, source)
    for made in (wheel, source):
        _try(session, made.resolve())


def _check_contents(session: nox.Session, wheel: Path, source: Path) -> None:
    """Check that the wheel has all of the package and nothing else, and the source all to test it."""
    tree = {str(path) for path in Path("scheduler").rglob("*") if path.is_file()}
    tree = {path for path in tree if "__pycache__" not in path}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    if packed != tree:
        session.error(f"{wheel.name} has not what scheduler/ has: {', '.join(sorted(packed ^ tree))}")
    with tarfile.open(source) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    needed = tree | {"LICENSE", "README.md", "CHANGELOG.md", "noxfile.py", "pyproject.toml", ".ci/tests.lock"}
    if missing := needed - names:
        session.error(f"{source.name} lacks {', '.join(sorted(missing))}")
    if not any(name.startswith("tests/") for name in names):
        session.error(f"{source.name} lacks the tests")


def _try(session: nox.Session, made: Path) -> None:
    """Install a distribution in a fresh environment, and use it in an empty folder."""
    folder = Path(session.create_tmp()).resolve() / "try"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "empty").mkdir(parents=True)
    session.run("python", "-m", "venv", str(folder / "env"))
    python, command = (str(folder / "env" / "bin" / name) for name in ("python", "scheduler"))
    session.run(python, "-m", "pip", "install", "--quiet", str(made), external=True)
    session.run(python, "-m", "pip", "check", external=True)
    version = made.name.removesuffix(".tar.gz").split("-")[1]
    with session.chdir(folder / "empty"):
        if session.run(command, "--version", external=True, silent=True) != f"{version}\n":
            session.error(f"scheduler --version does not say {version}")
        # Files that are no modules: documents, schemas, the permissions; the demo runs an example.
        for words in (
            ["help", "operating"],
            ["schema", "build"],
            ["schema", "reply"],
            ["permissions"],
            ["monitoring", "alerts"],
            ["asyncapi"],
            ["deploy", "nats"],
        ):
            session.run(command, *words, external=True, silent=True)
        session.run(command, "demo", "--latency", "100ms", external=True)
    shutil.rmtree(folder)


@nox.session
def container(session: nox.Session) -> None:
    """Build the image of `.ci/Containerfile`, and use it as it is deployed: no rights, a read-only root."""
    builder = next((name for name in BUILDERS if _works(name)), None)
    if builder is None:
        session.skip(f"NO IMAGE WAS BUILT OR TRIED: neither {' nor '.join(BUILDERS)} works here")
    [version] = re.findall(r'(?m)^__version__ = "(.+)"$', Path("scheduler/__init__.py").read_text())
    image = f"localhost/scheduler:{version}"
    session.run(builder, "build", "--file", ".ci/Containerfile", "--tag", image, ".", external=True)
    bare = ("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")  # noqa: S108
    if session.run(builder, *bare, image, "--version", external=True, silent=True) != f"{version}\n":
        session.error(f"the image does not say that it is {version}")
    session.run(builder, *bare, image, "demo", "--latency", "100ms", external=True)
    # The health check of `scheduler deploy compose` is run by Python, and spans need the extra.
    imports = "import http.client, opentelemetry.exporter.otlp.proto.http, opentelemetry.sdk.trace"
    session.run(builder, *bare, "--entrypoint", "python", image, "-Ic", imports, external=True)
    serve = [builder, *bare, "--detach", image, "serve", "--embedded", "--data-dir", "/tmp/data"]  # noqa: S108
    serve += ["--metrics", "9464"]
    for ready in (False, True):
        _serve(session, builder, serve, ready=ready)


def _serve(session: nox.Session, builder: str, serve: list[str], *, ready: bool) -> None:
    """Start a scheduler in a container, and stop it: at once, or when it is healthy as a deployment asks."""
    text = Path("scheduler/deploy/shipped/compose.yaml").read_text()
    [probe] = re.findall(r"(?s)      - -ISc\n      - \|\n(.*?)\n    interval:", text)
    ask = ["python", "-ISc", textwrap.dedent(probe)]
    # Without --rm: its exit code is asked for when it has ended.
    command = [word for word in serve if word != "--rm"]
    name = _output(command)
    try:
        deadline = time.monotonic() + 60
        while ready and not _succeeds([builder, "exec", name, *ask]):
            if time.monotonic() > deadline:
                session.error(f"{' '.join(command)}: not healthy within a minute")
            time.sleep(0.5)
        _output([builder, "stop", "-t", "30", name])
        code = _output([builder, "inspect", "--format", "{{.State.ExitCode}}", name])
        # Before it handles signals it ends by the signal. 137: it was killed at the end of the 30 s.
        if code not in ({"0"} if ready else {"0", "143"}):
            session.error(f"{' '.join(command)}: exit code {code} after SIGTERM")
        session.log(f"served, {'healthy, ' if ready else ''}and stopped with {code}")
    finally:
        _output([builder, "rm", "--force", name])


def _output(command: list[str]) -> str:
    """Run a command that has to succeed; return what it prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout.strip()  # noqa: S603


def _works(builder: str) -> bool:
    """Whether a builder of images is there, and the service that it needs."""
    if shutil.which(builder) is None:
        return False
    return _succeeds([builder, "info"])


def _succeeds(command: list[str]) -> bool:
    """Whether a command ends with 0."""
    return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0  # noqa: S603


@nox.session
def lock(session: nox.Session) -> None:
    """Write the locks from `pyproject.toml`; versions stay if they fit, unless `-- --upgrade` is given."""
    session.install("uv")
    for path, groups in LOCKS.items():
        # No name of a registry, since every installation has its own.
        options = ["--universal", "--python-version=3.11", "--generate-hashes", "--no-annotate", "--quiet"]
        options += ["--custom-compile-command=nox -s lock", f"--output-file={path}"]
        options += [f"--group={group}" for group in groups]
        # The image is to send spans where somebody asks for it; what is not asked for is not loaded.
        options += [f"--extra={extra}" for extra in PROJECT["project"]["optional-dependencies"]]
        if path != next(iter(LOCKS)):
            options.append(f"--constraint={next(iter(LOCKS))}")
        session.run("uv", "pip", "compile", "pyproject.toml", *options, *session.posargs)


@nox.session
def locked(session: nox.Session) -> None:
    """Run the tests on exactly the locked packages: a file with another hash is not installed."""
    session.install("--no-compile", "--require-hashes", "-r", ".ci/tests.lock")
    session.install("--no-deps", "--no-build-isolation", ".")
    session.run("python", "-m", "pip", "check")
    session.run("pytest", *PARALLEL, "-m", "not integration and not fuzz and not browser", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Look for known vulnerabilities of locked packages; fail if there is no data."""
    session.install("pip-audit")
    path, *_ = LOCKS
    found = Path(session.create_tmp()) / "audit.json"
    found.unlink(missing_ok=True)
    options = ("--require-hashes", "--disable-pip", "--format=json", f"--output={found}")
    session.run("pip-audit", *options, f"--requirement={path}", *session.posargs, success_codes=[0, 1])
    known = json.loads(found.read_text())["dependencies"] if found.exists() else []
    missing = set(re.findall(r"(?m)^([a-z0-9-]+)==", Path(path).read_text()))
    missing -= {one["name"] for one in known if "vulns" in one}
    if missing:
        session.error(
            f"NO DATA on {len(missing)} packages ({', '.join(sorted(missing)[:3])}, ...): not audited"
        )
    bad = [f"{one['name']} {one['version']}: {bug['id']}" for one in known for bug in one["vulns"]]
    if bad:
        session.error("; ".join(bad))
    session.log(f"{len(known)} packages, no vulnerability known")
