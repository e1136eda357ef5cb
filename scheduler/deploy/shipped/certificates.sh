#!/bin/sh
# Makes a private authority, and certificates of the brokers and of all users, by OpenSSL, in the folder
# certificates/. The arguments are the names and addresses by which brokers are reached:
#
#     sh certificates.sh {{ hosts | join(" ") }}
#
# The private keys come into being where this runs: NAME.key is secret, and for NAME alone. Keep ca.key where no
# service runs, or remove it: whoever has it can make a certificate for anybody.
#
# What is there is kept. A certificate is good for a year ($DAYS): before that remove NAME.pem, run this again, send
# SIGHUP to the brokers one after another, and restart schedulers one after another.
#
# Any authority of your own will do as well. A broker's certificate is for servers and clients, since brokers connect
# to each other, and has the names of all of them, since each tells clients the addresses of the others. A user's is
# for clients; who it is the broker takes from its nkey.
set -eu
umask 077
[ $# -gt 0 ] || { echo "certificates.sh: name the brokers: certificates.sh {{ hosts | join(" ") }}" >&2; exit 2; }

names="DNS:localhost,IP:127.0.0.1"
for host in "$@"; do
  case $host in
    *:*) names="$names,IP:$host" ;;
    *[!0-9.]*) names="$names,DNS:$host" ;;
    *) names="$names,IP:$host" ;;
  esac
done

mkdir -p certificates
cd certificates
trap 'rm -f draft.pem draft.key draft.csr draft.conf draft.log' EXIT

# OpenSSL tells much, of which only the end of a failure matters.
quietly() {
  "$@" 2> draft.log || { cat draft.log >&2; exit 1; }
}

if [ ! -e ca.pem ]; then
  cat > draft.conf <<-'END'
	[req]
	distinguished_name = name
	x509_extensions = authority
	prompt = no
	[name]
	CN = Authority of the scheduler
	[authority]
	basicConstraints = critical, CA:TRUE, pathlen:0
	keyUsage = critical, keyCertSign, cRLSign
	subjectKeyIdentifier = hash
	END
  quietly openssl req -x509 -config draft.conf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
    -days 3650 -keyout draft.key -out draft.pem
  mv draft.key ca.key
  mv draft.pem ca.pem
fi

# certificate NAME USAGES [ALTERNATIVE NAMES]
certificate() {
  if [ -e "$1.pem" ]; then return 0; fi
  cat > draft.conf <<-END
	[req]
	distinguished_name = name
	prompt = no
	[name]
	CN = $1
	[certificate]
	basicConstraints = critical, CA:FALSE
	keyUsage = critical, digitalSignature
	extendedKeyUsage = $2
	subjectKeyIdentifier = hash
	authorityKeyIdentifier = keyid
	subjectAltName = ${3:-DNS:$1}
	END
  quietly openssl req -new -config draft.conf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -sha256 \
    -keyout draft.key -out draft.csr
  quietly openssl x509 -req -in draft.csr -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" \
    -days "${DAYS:-365}" -sha256 -extfile draft.conf -extensions certificate -out draft.pem
  mv draft.key "$1.key"
  mv draft.pem "$1.pem"
}

certificate broker serverAuth,clientAuth "$names"
for user in {{ users | join(" ") }}; do
  certificate "$user" clientAuth
done
chmod 644 ./*.pem
{% if kind == "compose" %}
# Where root writes the files, the container of a scheduler is another user's.
[ "$(id -u)" -ne 0 ] || chown {{ unprivileged }}:{{ unprivileged }} scheduler.key
{% endif %}
