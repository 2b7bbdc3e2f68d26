# What the units do in the hands of a real systemd. boot.sh runs it.
trap 'systemctl --force --force poweroff' EXIT
fail() {
	echo "FAILED: $*"
	systemctl status --no-pager --full 'hacheck.*' || :
	ss -Hltn || :
	tail -n 40 /out/log
	exit 1
}
# soon COMMAND...: it succeeds before long.
soon() {
	local i
	for i in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "never: $*"
}
# The overrides of the machine that runs the tests do not count. This is a copy of its file system.
rm -rf /var/spool/hacheck/*
property() { systemctl show --property="$1" --value hacheck.service; }
answers() { curl --silent --fail --max-time 5 "http://${1-127.0.0.1:3333}/spool/web/0/"; }
state() { [ "$(property ActiveState)" = "$1" ]; }
# listens ADDRESS...: exactly there, of all addresses.
listens() { [ "$(ss -Hltn | awk '{print $4}' | sort | xargs)" = "$*" ]; }
# drop_in UNIT LINE...: the administrator's own lines.
drop_in() {
	local dir=/etc/systemd/system/$1.d
	shift
	mkdir -p "$dir"
	printf '%s\n' "$@" >"$dir/test.conf"
	systemctl daemon-reload
}
start() {
	systemctl start hacheck.service
	soon answers "$@"
}
stop() {
	systemctl stop hacheck.socket hacheck.service
	systemctl reset-failed
}
restarts() { [ "$(property NRestarts)" -gt "$before" ] && state active && answers; }
# comes_back WHAT COMMAND...: the daemon ends by COMMAND, and another one answers.
comes_back() {
	local what=$1 pid
	shift
	before=$(property NRestarts)
	pid=$(property MainPID)
	"$@" "$pid"
	soon restarts
	[ "$(property MainPID)" != "$pid" ] || fail "$what: it is still the same process"
	echo "$SECONDS ok: comes back after $what"
}
crash() {
	echo "$1" >/run/crash
	kill -USR1 "$2"
}

drop_in hacheck.service '[Service]' RestartSec=100ms Environment=CRASH=/run/crash
for socket in with without; do
	start
	kinds=(panic 'concurrent map writes' 'stack overflow' 'out of memory')
	[ $socket = with ] || kinds=(panic)
	for kind in "${kinds[@]}"; do
		comes_back "$kind, $socket the socket" crash "$kind"
	done
	for signal in KILL QUIT; do
		comes_back "SIG$signal, $socket the socket" kill "-$signal"
	done
	# A wrong configuration is refused by a reload, and not tried again after a start.
	cp /etc/hacheck.yaml /run/right.yaml
	echo 'cache_time: x' >>/etc/hacheck.yaml
	pid=$(property MainPID)
	: >/out/log
	if systemctl reload hacheck.service 2>/dev/null; then fail "a reload of a wrong configuration succeeds"; fi
	grep -q '^/etc/hacheck.yaml:2: cache_time: expected a number' /out/log || fail "a failed reload does not say why"
	answers || fail "it does not answer after a reload of a wrong configuration"
	[ "$(property MainPID)" = "$pid" ] || fail "a reload of a wrong configuration ended it"
	if systemctl restart hacheck.service 2>/dev/null; then fail "it starts with a wrong configuration"; fi
	soon state failed
	[ "$(property ExecMainStatus)" = 2 ] || fail "a wrong configuration ends it with $(property ExecMainStatus)"
	cp /run/right.yaml /etc/hacheck.yaml
	stop
	# With an unknown key it starts, and so it also reloads, and says so.
	start
	echo 'cache_tme: 5' >>/etc/hacheck.yaml
	systemctl reload hacheck.service || fail "a reload fails for an unknown key"
	grep -q '^/etc/hacheck.yaml:2: cache_tme: unknown key' /out/log || fail "a reload does not warn about an unknown key"
	echo 'log_path: /etc/hacheck.yaml/log' >/etc/hacheck.yaml
	if systemctl reload hacheck.service 2>/dev/null; then fail "a reload succeeds with a log that cannot be opened"; fi
	grep -q '^/etc/hacheck.yaml: open log_path: ' /out/log || fail "a failed reload does not name the log"
	cp /run/right.yaml /etc/hacheck.yaml
	systemctl reload hacheck.service || fail "a reload of a right configuration fails"
	soon grep -q 'msg="reloaded the configuration"' /out/log
	stop
	echo "$SECONDS ok: wrong configuration, $socket the socket"
	# As "systemctl mask" does.
	ln -sf /dev/null /etc/systemd/system/hacheck.socket
	systemctl daemon-reload
done
start
listens 0.0.0.0:3333 || fail "with the socket masked it does not open the port of its flags"
stop
rm /etc/systemd/system/hacheck.socket
systemctl daemon-reload
echo "$SECONDS ok: masked socket"

# A missing spool directory is created. Owner and mode of an existing one stay.
spool() { stat -c '%a %U:%G' /var/spool/hacheck; }
rm -r /var/spool/hacheck
start
[ "$(spool)" = '750 hacheck:hacheck' ] || fail "a missing spool directory becomes $(spool)"
chown hacheck:games /var/spool/hacheck
chmod 2770 /var/spool/hacheck
systemctl restart hacheck.service
soon answers
[ "$(spool)" = '2770 hacheck:games' ] || fail "a restart makes the spool directory $(spool)"
stop
echo "$SECONDS ok: spool directory"

# systemd makes the control socket, and it ends with the daemon: no command starts a daemon that was stopped.
control=/run/hacheck/control.sock
asks() { curl --silent --http0.9 --max-time 5 --unix-socket $control http://localhost/ | grep -q 'request cannot be read'; }
start
[ "$(stat -c '%a %U:%G' $control)" = '660 root:hacheck' ] || fail "the control socket is $(stat -c '%a %U:%G' $control)"
soon asks
systemctl restart hacheck.service
soon asks
stop
soon test ! -e $control
ln -sf /dev/null /etc/systemd/system/hacheck-control.socket
systemctl daemon-reload
start
grep -q 'there is no control socket' /out/log || fail "nothing says that there is no control socket"
stop
rm /etc/systemd/system/hacheck-control.socket
systemctl daemon-reload
# A control socket that has failed does not matter.
echo >/run/hacheck.file
drop_in hacheck-control.socket '[Socket]' ListenStream= ListenStream=/run/hacheck.file/control.sock
start
stop
rm -r /etc/systemd/system/hacheck-control.socket.d
systemctl daemon-reload
echo "$SECONDS ok: control socket"

# The watchdog, of a daemon that does nothing any more.
drop_in hacheck.service '[Service]' RestartSec=100ms WatchdogSec=1 TimeoutAbortSec=1
start
comes_back "a watchdog" kill -STOP
[ "$(property LimitCORE)" = 0 ] || fail "core files are allowed"
[ "$(property MemoryMax)" = $((2 << 30)) ] && [ "$(property TasksMax)" = 2048 ] || fail "it is not bounded"
stop

# What a script leaves behind, and does not end by SIGTERM, holds up no restart and is gone then.
drop_in hacheck.service '[Service]' RestartSec=100ms Environment=CRASH=/run/crash
cat >>/etc/hacheck.yaml <<END
services:
  left: {checks: [{type: script, command: [/bin/sh, -c, "trap '' TERM; sleep 1234 & exit 0"]}]}
  slow: {checks: [{type: script, command: [/bin/sh, -c, "echo >>/tmp/began; sleep 2"]}]}
END
start
curl --silent --max-time 10 http://127.0.0.1:3333/checks/left/0/ >/dev/null &
comes_back "a crash beside a script" crash panic
! pgrep -f 'sleep 1234' || fail "a crash leaves a script running"
# A restart lets a script that answers a request finish.
curl --silent --output /dev/null --write-out '%{http_code}' --max-time 10 http://127.0.0.1:3333/checks/slow/0/ >/run/slow &
soon pgrep -f 'sleep 2'
systemctl restart hacheck.service
wait %%
[ "$(cat /run/slow)" = 200 ] || fail "a restart has a running check answer $(cat /run/slow)"
stop
cp /run/right.yaml /etc/hacheck.yaml
echo "$SECONDS ok: scripts"

# One command puts a changed port in force, and one stops the daemon and its socket.
start
for port in 3334 3335 3333; do
	drop_in hacheck.socket '[Socket]' ListenStream= ListenStream=0.0.0.0:$port
	systemctl restart hacheck.socket
	soon answers 127.0.0.1:$port
	listens 0.0.0.0:$port || fail "after a change of the port it listens elsewhere"
	state active || fail "after a change of the port it is $(property ActiveState)"
done
systemctl stop hacheck.service
soon answers # the socket starts it
systemctl stop hacheck.socket
soon state inactive
listens || fail "it listens after systemctl stop hacheck.socket"
if answers; then fail "it answers after systemctl stop hacheck.socket"; fi
rm -r /etc/systemd/system/hacheck.socket.d
systemctl daemon-reload
echo "$SECONDS ok: changed port"

# A narrowed socket whose address this machine does not have yet.
drop_in hacheck.socket '[Socket]' ListenStream= ListenStream=10.9.9.9:3333
systemctl start hacheck.socket hacheck.service
listens 10.9.9.9:3333 || fail "a narrowed socket is not where it should be"
ip address add 10.9.9.9/32 dev lo
soon answers 10.9.9.9:3333
stop
echo "$SECONDS ok: late address"

# A socket that has failed: nothing else is opened, and it comes back by itself.
ip address del 10.9.9.9/32 dev lo
drop_in hacheck.socket '[Socket]' ListenStream= ListenStream=10.9.9.9:3333 FreeBind=no
not_open() {
	if systemctl start hacheck.service 2>/dev/null; then fail "it starts without $1"; fi
	before=$(property NRestarts)
	soon eval '[ "$(property NRestarts)" -gt $((before + 2)) ]'
	listens ${2-} || fail "without $1 it listens elsewhere"
	grep -q "$1 is not active, so hacheck does not start" /out/log || fail "nothing says so"
}
not_open hacheck.socket
ip address add 10.9.9.9/32 dev lo
soon answers 10.9.9.9:3333
listens 10.9.9.9:3333 || fail "it listens elsewhere"
stop
echo "$SECONDS ok: failed socket"

# A unit that systemd does not accept.
drop_in hacheck.socket '[Socket]' ListenStream=
: >/out/log
not_open hacheck.socket
systemctl stop hacheck.service
rm -r /etc/systemd/system/hacheck.socket.d
echo "$SECONDS ok: wrong socket unit"

# The socket of another port of the daemon.
printf '%s\n' '[Socket]' ListenStream=10.9.9.8:3334 Service=hacheck.service >/run/units/agent.socket
drop_in hacheck.service '[Service]' RestartSec=100ms Sockets=agent.socket 'Environment="HACHECK_OPTIONS=-A 3334"'
not_open agent.socket 0.0.0.0:3333
systemctl stop agent.socket
stop
drop_in agent.socket '[Socket]' FreeBind=yes
start
listens 0.0.0.0:3333 10.9.9.8:3334 || fail "the agent listens elsewhere"
trap - EXIT
echo DONE
systemctl --force --force poweroff >/dev/null 2>&1
