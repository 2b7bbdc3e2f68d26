#!/bin/bash
# Installs what the tests run against, on Debian: real servers, the tools that break things, and the C
# compiler of the race detector. Does nothing when all of it is there. Nothing is skipped for want of a
# server: a test that misses one fails.
set -euo pipefail

# A user's PATH has no sbin, where Debian keeps most servers.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# Checks of IPv6 are tested on ::1, which many containers lack.
if ! grep -qs '^0\{31\}1 ' /proc/net/if_inet6 && [ -d /proc/net ]; then
	if ! (echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6) 2>/dev/null; then
		echo "the tests need the IPv6 loopback address ::1, please run: sudo sysctl -w net.ipv6.conf.lo.disable_ipv6=0" \
			"(for a container: docker run --sysctl net.ipv6.conf.lo.disable_ipv6=0)" >&2
		exit 1
	fi
fi

# <Debian package> <a command it brings>
needed='
haproxy             haproxy
nginx-light         nginx
tinyproxy           tinyproxy
wrk                 wrk
redis-server        redis-server
redis-sentinel      redis-sentinel
mariadb-server      mariadbd
exim4-daemon-light  exim4
postgresql          pg_ctlcluster
memcached           memcached
rabbitmq-server     rabbitmq-server
curl                curl
chromium            chromium
socat               socat
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
'

# HAPROXY names another HAProxy to test with, which has to be there already.
if [ -n "${HAPROXY:-}" ]; then
	if ! command -v "$HAPROXY" >/dev/null; then
		echo "HAPROXY=$HAPROXY is no program: give the path of an HAProxy, or unset HAPROXY to test the installed one" >&2
		exit 1
	fi
	needed=${needed/haproxy             haproxy$'\n'/}
fi

missing=$(while read -r package command; do
	if [ -n "$package" ] && ! command -v "$command" >/dev/null; then echo "$package"; fi
done <<<"$needed")
# The compiler without the C library's headers is of no use to the race detector.
if [ ! -e /usr/include/stdlib.h ]; then missing="$missing libc6-dev"; fi
# Nor is a Python without its library, which is what python3-minimal brings.
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

# Debian starts a server as soon as it is installed. The tests start their own, on ports of their own,
# so nothing shall run (and be left running) on the standard ports of this machine.
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
