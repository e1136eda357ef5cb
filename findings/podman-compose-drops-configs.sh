#!/usr/bin/env bash
# podman-compose: a service's `configs:` are left out without a word, and the container is created all the same.
#
# Version:     podman-compose 1.6.0
# Expectation: `configs:` of the Compose Specification gives a file to a container, as `secrets:` does, which is
#              written alike and known to podman-compose. What a tool does not know of a valid file it refuses,
#              or warns of; all the more where `podman-compose config` prints it as it stands.
# Behaviour:   the secret becomes a `--volume` of `podman create`; the config becomes nothing. There is no
#              warning, and the exit code is 0. The program in the container starts with the configuration of
#              its image: a broker without accounts, for example, which everybody may use.
# Met by:      a compose file that works with Docker Compose, brought up with Podman.
# Seen on:     2026-12-01
# Output seen: config prints the config: yes
#              up: exit code 0, says nothing
#              podman create: mounts /run/login: yes, mounts /etc/broker.conf: no
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q podman-compose==1.6.0
cd "$folder"
mkdir bin app
# In the place of Podman, which nothing here depends on: notes what it is asked to do.
cat > bin/podman <<'SHELL'
#!/bin/sh
echo "$*" >> "$(dirname "$0")/../asked"
case "$1" in --version) echo "podman version 4.3.1" ;; ps) echo "[]" ;; esac
SHELL
chmod +x bin/podman
echo "a secret" > app/login.txt
echo "a setting" > app/broker.conf
cat > app/compose.yaml <<'YAML'
services:
  broker:
    image: example.invalid/broker:1
    secrets: [{source: login, target: /run/login}]
    configs: [{source: settings, target: /etc/broker.conf}]
secrets: {login: {file: ./login.txt}}
configs: {settings: {file: ./broker.conf}}
YAML
compose() { (cd app && PATH="$folder/bin:$PATH" ../venv/bin/podman-compose "$@"); }
has() { if grep -q -- "$1" "$2"; then echo yes; else echo no; fi; }
compose config > config.txt 2> /dev/null
said=nothing
code=0
compose up --no-start > up.txt 2>&1 || code=$?
if grep -qi -e config -e warn up.txt; then said=something; fi
grep '^create ' asked > create.txt
seen="config prints the config: $(has /etc/broker.conf config.txt)
up: exit code $code, says $said
podman create: mounts /run/login: $(has :/run/login: create.txt), mounts /etc/broker.conf: $(has /etc/broker.conf create.txt)"
echo "$seen"
[ "$seen" = "config prints the config: yes
up: exit code 0, says nothing
podman create: mounts /run/login: yes, mounts /etc/broker.conf: no" ]
