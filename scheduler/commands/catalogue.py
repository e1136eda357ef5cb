"""Every command: its group, its texts in the help, an example, and the place of its function.

No command is loaded, so that listing all of them costs nothing.
"""

from typing import Final, NamedTuple

_CONNECTS: Final = "--help-all also shows how to reach the broker (--nats-url), and what is logged."
_VARIABLES: Final = "A flag can also be given as the variable that is named beside it."
_LOGS: Final = "--help-all also shows what is logged."


class CommandEntry(NamedTuple):
    """Command as its help presents it."""

    group: str
    name: str
    summary: str
    """One imperative sentence, for the list of all commands."""
    example: str
    """Example call, without the program's name."""
    details: str = ""
    hidden: str = _CONNECTS
    """Line about the flags that only ``--help-all`` shows; empty if there are none."""
    home: str = ""
    """``module:function`` in this package; if empty, both are the command's name."""

    @property
    def import_path(self) -> str:
        """Import path of its function, in the form of cyclopts."""
        return f"scheduler.commands.{self.home or f'{self.name}:{self.name}'}"

    @property
    def help(self) -> str:
        """Text above its flags."""
        return f"{self.summary}\n\n{self.details}" if self.details else self.summary

    def epilogue(self, *, everything: bool) -> str:
        """Return the text below its flags; ``everything`` tells whether all flags are shown."""
        hidden = [] if everything or not self.hidden else [self.hidden]
        without = {"completion", "deploy", "help", "monitoring", "schema"}
        variables = [] if self.name in without else [_VARIABLES]
        return "\n".join((f"Example: scheduler {self.example}", *hidden, *variables))


RUN, LOOK, STEER, OPERATE = "Run", "Look", "Steer", "Operate"
"""Groups of commands, in the order of the help."""
COMMANDS: Final = (
    CommandEntry(
        RUN,
        "serve",
        "Take builds from the broker and run them.",
        "serve --embedded",
        "`scheduler` alone does the same, except when it is typed at a terminal.",
    ),
    CommandEntry(
        RUN,
        "run",
        "Submit a build, follow it live and print how it ends.",
        "run build.json --embedded --simulate",
        "With --embedded, a broker and a scheduler run in this process; with --simulate, connectors too.",
    ),
    CommandEntry(
        RUN,
        "demo",
        "Run an example build, with all it needs in this process.",
        "demo --components 200",
        "No cloud is contacted, and nothing is left behind.",
        hidden=_LOGS,
    ),
    CommandEntry(
        RUN,
        "simulate",
        "Answer as connectors of every type and provider.",
        "simulate --latency 2s --failure-rate 0.05",
        "Do not run it beside real connectors: each request would be answered twice.",
    ),
    CommandEntry(
        RUN,
        "connect",
        "Run connectors that are made with the kit.",
        "connect my.module:connectors --store sqlite:connectors.db",
        "The module is looked for in the working directory, too. At SIGTERM what is begun is ended, and"
        " answered; a second signal does not wait for it. `scheduler help tutorial` writes such a module.",
    ),
    CommandEntry(
        LOOK,
        "validate",
        "List every problem of a build, each with its place.",
        "validate build.json",
    ),
    CommandEntry(
        LOOK,
        "plan",
        "Show what a build will do, without running it.",
        "plan build.json --durations 'vpc.create.*=2m, *=5'",
        "Shows its waves, its critical path, its duration under the limits, and the references that can"
        " only be checked when they are due. Works offline unless --ask is given.",
    ),
    CommandEntry(
        LOOK,
        "graph",
        "Draw a build as DOT, Mermaid or SVG.",
        "graph build.json --format svg --output build.svg",
        "From a file: what it will do. By a build's id: its current state.",
    ),
    CommandEntry(
        LOOK,
        "list",
        "List the builds of a scheduler.",
        "list --status errored cancelled --since yesterday",
        "Running builds only, unless --all is given, or a flag that asks for finished ones, such as"
        " --since. The latest one is at the end.",
        home="listing:list_",
    ),
    CommandEntry(
        LOOK,
        "status",
        "Show the current state of a build.",
        "status prod-eu-1",
        "Its progress, also by type, running components, failures with their causes, and the limits it has"
        " reached.",
        home="listing:status",
    ),
    CommandEntry(
        LOOK,
        "watch",
        "Follow a running build live and print how it ends.",
        "watch prod-eu-1",
        "Exits with 0 if the build succeeded, 1 if it failed. An interrupt does not stop the build.",
    ),
    CommandEntry(
        LOOK,
        "wait",
        "Wait until a build has ended.",
        "wait prod-eu-1 --timeout 1h",
        "Exits with 0 if the build is done, 1 if it errored or was cancelled, 124 after the timeout. Restarts"
        " of the scheduler and of the broker do not end it.",
    ),
    CommandEntry(
        LOOK,
        "why",
        "Explain what a build or component is waiting for.",
        "why prod-eu-1 vpc::web",
        "Since when, for which components, limit or connector, and what to do about it.",
    ),
    CommandEntry(
        LOOK,
        "history",
        "List what operators had done to a build, by whom and why.",
        "history prod-eu-1",
        "Every cancel, pause, resume, retry, skip, approve, reject, extend, limit and release that was"
        " carried out, in all runs. A name that only its sender gave is marked as claimed.",
    ),
    CommandEntry(
        LOOK,
        "timeline",
        "Show when each component ran, and what took the time.",
        "timeline prod-eu-1 --trace trace.json",
        "The critical path, waiting time against working time, and the ten slowest components.",
    ),
    CommandEntry(
        LOOK,
        "report",
        "Print the report of a build that has ended, or one value of it.",
        "report prod-eu-1 --component vpc::web --field vpc_aws_id",
        "As JSON: the whole build as it was reported; or one component; or one value, a text as it is."
        " Secrets are shown as ***, unless --secrets is given.",
    ),
    CommandEntry(
        LOOK,
        "export",
        "Print a build's log as JSON lines.",
        "export prod-eu-1 > build.jsonl",
        "Every record, with its number and time in the stream, in order. It holds whole builds, with their"
        " credentials: secrets are shown as ***, unless --secrets is given; the key of the reply subjects"
        " is never shown.",
    ),
    CommandEntry(
        STEER,
        "cancel",
        "Stop a build: start nothing new, await what is in flight.",
        "cancel prod-eu-1 --reason 'wrong region'",
        "The build ends with an error, and can be retried.",
        home="control:cancel",
    ),
    CommandEntry(
        STEER,
        "pause",
        "Start nothing new in a build until it is resumed.",
        "pause prod-eu-1",
        home="control:pause",
    ),
    CommandEntry(
        STEER,
        "resume",
        "Resume a paused build.",
        "resume prod-eu-1",
        home="control:resume",
    ),
    CommandEntry(
        STEER,
        "retry",
        "Retry what failed in a build, or one of its components.",
        "retry prod-eu-1 vpc::web",
        "A finished build can be retried too: it continues from where it stopped.",
        home="control:retry",
    ),
    CommandEntry(
        STEER,
        "skip",
        "Mark a component as done and continue without it.",
        """skip prod-eu-1 vpc::web --output '{"vpc_aws_id": "vpc-1"}'""",
        "Its dependents may need what its connector would have returned: give that with --output.",
        home="control:skip",
    ),
    CommandEntry(
        STEER,
        "approve",
        "Approve a component that waits for a person.",
        "approve prod-eu-1 approve::deletion --reason seen",
        "What depends on it begins, and can refer to who approved it, when and why.",
        home="control:approve",
    ),
    CommandEntry(
        STEER,
        "reject",
        "Reject a component that waits for a person.",
        "reject prod-eu-1 approve::deletion --reason 'not on a Friday'",
        "It fails, and the build treats that as any failure; retry asks again.",
        home="control:reject",
    ),
    CommandEntry(
        STEER,
        "extend",
        "Give a running component, or a gate, more time.",
        "extend prod-eu-1 vpc::web 10m",
        home="control:extend",
    ),
    CommandEntry(
        STEER,
        "limit",
        "Limit the requests of a build, at a time or in a period.",
        "limit prod-eu-1 'vpc.create.*=5, *.create.aws=20/s'",
        home="control:limit",
    ),
    CommandEntry(
        OPERATE,
        "instances",
        "List the instances that share the builds.",
        "instances",
        "Each with its standing, its version, the builds and components that it has, and the age of its"
        " lease: one that does not renew it for 15 s has lapsed, and others take its builds over.",
    ),
    CommandEntry(
        OPERATE,
        "doctor",
        "Check whether a service would run well on a broker.",
        "doctor --nats-url nats://broker:4222",
        "Tries what a service does: version, permissions, limits, streams, clocks, and 200 commits to a"
        " stream of its own, which is deleted afterwards. Exits with 1 if a service could not run.",
        hidden="--help-all also shows how to reach the broker (--nats-url).",
    ),
    CommandEntry(
        OPERATE,
        "check-connector",
        "Test whether a connector keeps the contract.",
        "check-connector vpc.create.aws --body vpc.json --yes",
        "Sends it requests as a scheduler does, and judges its replies, what it does with the same request"
        " twice, heartbeats, cancellation and many requests at once. It really acts: use an account for"
        " tests. Exits with 1 if a check failed. See `scheduler help connectors`.",
        home="check_connector:check_connector",
    ),
    CommandEntry(
        OPERATE,
        "permissions",
        "Print a broker configuration with the least permissions.",
        "permissions > nats-server.conf",
        "For the scheduler, for connectors and for users who submit builds; its comments say how to use it.",
        hidden="",
    ),
    CommandEntry(
        OPERATE,
        "monitoring",
        "Print a Grafana dashboard or Prometheus alert rules.",
        "monitoring alerts > scheduler-alerts.yml",
        "Both stand on the metrics that a service with --metrics serves.",
        hidden="",
    ),
    CommandEntry(
        OPERATE,
        "deploy",
        "Print files that run three brokers and three schedulers.",
        "deploy compose --output deploy",
        "For Docker Compose, systemd or Kubernetes, or the brokers alone. With --output they are written into"
        " a folder, with an nkey for each user and the least permissions; with --tls also a script that makes"
        " certificates. A dashboard and alert rules are among them.",
        hidden="",
    ),
    CommandEntry(
        OPERATE,
        "schema",
        "Print the JSON Schema of a build, or of a reply.",
        "schema build > build.schema.json",
        "Editors complete and check a build by it while it is written; validate knows more.",
        hidden="",
    ),
    CommandEntry(
        OPERATE,
        "asyncapi",
        "Print an AsyncAPI document of all subjects and messages.",
        "asyncapi > asyncapi.yaml",
        "Who may publish and subscribe, what a message has to be, and examples; made of the code itself.",
        hidden="",
    ),
    CommandEntry(
        OPERATE,
        "release",
        "Release a quarantined build so that it is loaded again.",
        "release prod-eu-1",
        "A build is quarantined when schedulers crash while they load it, so that it cannot keep the"
        " service from starting.",
    ),
    CommandEntry(
        OPERATE,
        "completion",
        "Print a script that completes commands in a shell.",
        "completion bash >> ~/.bashrc",
        "It completes commands, flags, topics and files, and asks a running scheduler for the ids of builds"
        " and components. zsh takes it as a file _scheduler in its fpath, fish as"
        " ~/.config/fish/completions/scheduler.fish.",
        hidden="",
    ),
    CommandEntry(
        OPERATE,
        "help",
        "Show a document on a topic, or list the topics.",
        "help connectors",
        "In a terminal it is shown in its width, and a page at a time where it does not fit.",
        hidden="",
        home="topics:help_",
    ),
)
NAMES: Final = tuple(command.name for command in COMMANDS)
