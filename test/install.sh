#!/bin/bash
# Installs the Debian packages that the tests need: real servers, tools that cause faults, and the C compiler for the race
# detector. Does nothing if all of them are installed. A test whose server is missing fails; it is never skipped.
set -euo pipefail

# Debian installs most servers in sbin, which is not in the PATH of a user.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# Tests of IPv6 use ::1, which many containers do not have.
if ! grep -qs '^0\{31\}1 ' /proc/net/if_inet6 && [ -d /proc/net ]; then
	if ! (echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6) 2>/dev/null; then
		echo "the tests need the IPv6 loopback address ::1, please run: sudo sysctl -w net.ipv6.conf.lo.disable_ipv6=0" \
			"(for a container: docker run --sysctl net.ipv6.conf.lo.disable_ipv6=0)" >&2
		exit 1
	fi
fi

# <Debian package> <a command of this package>
needed='
haproxy             haproxy
nginx-light         nginx
tinyproxy           tinyproxy
wrk                 wrk
redis-server        redis-server
redis-sentinel      redis-sentinel
mariadb-server      mariadbd
mariadb-backup      mariabackup
exim4-daemon-light  exim4
apache2-bin         apache2
caddy               caddy
keepalived          keepalived
varnish             varnishd
openssl             openssl
slapd               slapd
postgresql          pg_ctlcluster
pgbouncer           pgbouncer
memcached           memcached
rabbitmq-server     rabbitmq-server
etcd-server         etcd
etcd-client         etcdctl
curl                curl
chromium            chromium
socat               socat
etcd-server         etcd
strace              strace
iproute2            ss
procps              ps
prometheus          promtool
util-linux          unshare
mount               mount
python3             python3
gcc                 gcc
systemd             systemd-socket-activate
rpm                 rpm
groff-base          groff
fish                fish
zsh                 zsh
logrotate           logrotate
lintian             lintian
'

# HAPROXY is the path of another HAProxy for the tests. It must exist.
if [ -n "${HAPROXY:-}" ]; then
	if ! command -v "$HAPROXY" >/dev/null; then
		echo "HAPROXY=$HAPROXY is no program: give the path of an HAProxy, or unset HAPROXY to test the installed one" >&2
		exit 1
	fi
	needed=${needed/haproxy             haproxy$'\n'/}
fi

# ETCD is the path of another etcd for the tests. It must exist.
if [ -n "${ETCD:-}" ]; then
	if ! command -v "$ETCD" >/dev/null; then
		echo "ETCD=$ETCD is no program: give the path of an etcd, or unset ETCD to test the installed one" >&2
		exit 1
	fi
	needed=${needed/etcd-server         etcd$'\n'/}
fi

missing=$(while read -r package command; do
	if [ -n "$package" ] && ! command -v "$command" >/dev/null; then echo "$package"; fi
done <<<"$needed")
# The race detector needs the headers of the C library too.
if [ ! -e /usr/include/stdlib.h ]; then missing="$missing libc6-dev"; fi
# The tests need the library of Python too, which python3-minimal does not have.
if ! python3 -c 'import json' 2>/dev/null; then missing="$missing python3"; fi
missing=$(echo $missing)
if [ -z "$missing" ]; then exit 0; fi

if ! command -v apt-get >/dev/null; then
	echo "the tests need what these Debian packages bring, please install it: $missing" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "the tests need more packages, please run: sudo apt-get install $missing" >&2
	exit 1
fi

# Debian starts a server at its installation. The tests start their own servers on free ports, so prevent a server on a
# standard port, which would keep running after the tests.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$policy"' EXIT
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing
