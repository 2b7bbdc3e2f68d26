# What the scripts for both kinds of package say.
fail() {
	echo "FAILED: $*" >&2
	exit 1
}
# is WANT COMMAND...: the command prints WANT.
is() {
	local want=$1 got
	shift
	got=$("$@" 2>&1) || true
	[ "$got" = "$want" ] || fail "$*: $got, want $want"
}
# soon COMMAND...: it succeeds before long.
soon() {
	local i
	for i in $(seq 200); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "never: $*"
}
code() { curl -s -o /dev/null -w '%{http_code}' "http://127.0.0.1:3333/spool/$1/0/"; }
gone() { [ ! -e "$1" ] && [ ! -L "$1" ]; }
must_be_gone() { for f in "$@"; do gone "$f" || fail "$f is left"; done; }

as_daemon() { (exec setpriv --reuid hacheck --regid hacheck --init-groups --inh-caps=-all "$@"); }
# start_daemon runs the daemon as the unit does, with the socket handed over.
start_daemon() {
	rm -f /tmp/pid/daemon
	as_daemon sh -c 'echo $$ >/tmp/pid/daemon; exec systemd-socket-activate -l 0.0.0.0:3333 /usr/bin/hacheck --config-file /etc/hacheck.yaml' 2>/tmp/log &
	soon curl -s http://127.0.0.1:3333/status
}
stop_daemon() {
	kill "$(cat /tmp/pid/daemon)"
	wait %% || fail "the daemon ended with $?: $(cat /tmp/log)"
}

install -d -m 0777 /tmp/pid

# installed VERSION: all of it is there and works together.
installed() {
	is "hacheck $1" hacheck --version
	is "hashowdowned $1" hashowdowned --version
	is "halist $1" halist --version
	is hacheck:hacheck:750 stat -c %U:%G:%a /var/spool/hacheck
	is root:hacheck:640 stat -c %U:%G:%a /etc/hacheck.yaml
	is "/etc/hacheck.yaml: ok" as_daemon hacheck --check-config -c /etc/hacheck.yaml
	# The manual is not there in a container, which leaves pages away; the files it names are.
	# systemd prints its complaints about every unit that ours are started with; only those about ours make it fail.
	systemd-analyze verify --man=no --recursive-errors=no hacheck.service hacheck.socket hacheck-drain.service >/tmp/verify 2>&1 || fail "$(cat /tmp/verify)"
	logrotate --debug /etc/logrotate.d/hacheck >/tmp/logrotate 2>&1 || fail "$(cat /tmp/logrotate)"
}

# spool_kept OWNER:GROUP:MODE: an upgrade and a boot leave what the administrator has set. Afterwards it is the default again.
spool_kept() {
	if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create --boot >/dev/null 2>&1 || true; fi
	is "$1" stat -c %U:%G:%a /var/spool/hacheck
	chown hacheck:hacheck /var/spool/hacheck
	chmod 00750 /var/spool/hacheck # five digits also clear the setgid bit
}

# works: operators change what the daemon, who is another user, answers; and the daemon removes what has expired.
works() {
	start_daemon
	is 200 code web
	hadown web -r 'kernel upgrade'
	is 503 code web
	is root:root:644 stat -c %U:%G:%a /var/spool/hacheck/web
	hadown api --for 1s -r short
	is 503 code api
	soon gone /var/spool/hacheck/api # nobody asks: the daemon finds out by itself
	is 200 code api
	is "$(printf 'DOWN\tinf\tweb\tkernel upgrade')" as_daemon hashowdowned
	haup web
	is 200 code web
	stop_daemon
}
