# The life of the Debian package under a real systemd. boot.sh runs it. v1.deb and v2.deb are two versions of it.
trap 'systemctl --force --force poweroff' EXIT
cd /run/packages
fail() {
	echo "FAILED: $*"
	cat /run/said || :
	systemctl status --no-pager --full 'hacheck.*' || :
	tail -n 40 /out/log
	exit 1
}
soon() {
	local i
	for i in $(seq 300); do
		if "$@" >/dev/null 2>&1; then return; fi
		sleep 0.1
	done
	fail "never: $*"
}
# quiet COMMAND...: it succeeds without a terminal.
quiet() { "$@" </dev/null >/run/said 2>&1 || fail "$*"; }
says() { grep -qF "$1" /run/said || fail "it does not say: $1"; }
answers() { curl --silent --fail --max-time 5 http://127.0.0.1:3333/spool/web/0/; }
# at_once: the daemon answers when dpkg has ended.
at_once() {
	[ "$(systemctl is-active hacheck.service)" = active ] || fail "$1: it does not run"
	answers || fail "$1: it does not answer"
	echo "$SECONDS ok: $1"
}
silent() {
	[ "$(systemctl is-active hacheck.service)" != active ] || fail "$1: it runs"
	! answers || fail "$1: it answers"
	echo "$SECONDS ok: $1"
}
pid() { systemctl show --property=MainPID --value hacheck.service; }
owner() { stat -c '%U:%G %a' /etc/hacheck.yaml; }
if dpkg -s hacheck >/dev/null 2>&1; then quiet dpkg --purge hacheck; fi
rm -rf /var/spool/hacheck

quiet dpkg --install v1.deb
at_once "installation"
[ "$(owner)" = 'root:hacheck 640' ] || fail "the configuration is $(owner)"
quiet dpkg --remove hacheck
silent "removal"
quiet dpkg --install v1.deb
at_once "installation after a removal"
before=$(pid)
quiet dpkg --install v2.deb
at_once "upgrade"
[ "$(pid)" != "$before" ] || fail "an upgrade leaves the old daemon running"

# What the administrator has stopped or disabled stays so.
systemctl stop hacheck.socket
quiet dpkg --install v1.deb
silent "upgrade of a stopped daemon"
systemctl disable hacheck.socket hacheck.service 2>/dev/null
quiet dpkg --remove hacheck
quiet dpkg --install v1.deb
silent "installation of a disabled daemon"
systemctl enable hacheck.socket hacheck.service 2>/dev/null
systemctl start hacheck.service
at_once "start"

# A daemon that has failed comes back with an upgrade.
echo 'cache_time: x' >>/etc/hacheck.yaml
if systemctl restart hacheck.service 2>/dev/null; then fail "it starts with a wrong configuration"; fi
sed -i '$d' /etc/hacheck.yaml
quiet dpkg --install v2.deb
at_once "upgrade of a failed daemon"
quiet dpkg --purge hacheck
[ ! -e /etc/hacheck.yaml ] || fail "purging leaves the configuration"
install -d /var/spool/hacheck

# The files of the Python hacheck.
printf 'cache_time: 7\nmysql_password: hunter2\nodd: 1\n' >/etc/hacheck.yaml
chmod 0600 /etc/hacheck.yaml
cp /etc/hacheck.yaml /run/before.yaml
chown root:games /var/spool/hacheck
chmod 2755 /var/spool/hacheck
echo 'OPTIONS=-v' >/etc/default/hacheck
echo '/var/log/hacheck.log {}' >/etc/logrotate.d/hacheck
quiet dpkg --install v1.deb
at_once "installation over the files of the Python hacheck"
says 'hacheck: /etc/hacheck.yaml is now root:hacheck 640, so that the daemon can read it (before: root:root 600)'
says '/etc/hacheck.yaml:3: odd: unknown key'
says 'hacheck: /etc/default/hacheck is not of this package and is now /etc/default/hacheck.dpkg-old'
says 'hacheck: /var/spool/hacheck is now hacheck:games 2755, so that the daemon can use it (before: root:games 2755)'
! grep hunter2 /run/said || fail "the password is shown"
[ "$(owner)" = 'root:hacheck 640' ] || fail "the configuration is $(owner)"
cmp /etc/hacheck.yaml /run/before.yaml || fail "the configuration has changed"
[ "$(cat /etc/default/hacheck.dpkg-old)" = 'OPTIONS=-v' ] || fail "the old options are lost"
grep -q HACHECK_OPTIONS /etc/default/hacheck || fail "the options of the package are missing"
# The administrator's choice stays.
chmod 0440 /etc/hacheck.yaml
quiet dpkg --install v2.deb
at_once "upgrade of a configuration with another mode"
[ "$(owner)" = 'root:hacheck 440' ] || fail "an upgrade makes the configuration $(owner)"

# The drain unit is not enabled. A stop that is no shutdown takes nothing out.
[ "$(systemctl is-enabled hacheck-drain.service)" = disabled ] || fail "the drain unit is enabled"
systemctl enable --now hacheck-drain.service 2>/dev/null
systemctl stop hacheck-drain.service
[ ! -e /var/spool/hacheck/all ] || fail "a stop of the drain unit takes the host out"
# After a removal it is active again, because only an active unit does something at a shutdown.
systemctl start hacheck-drain.service
quiet dpkg --remove hacheck
quiet dpkg --install v2.deb
at_once "installation with an enabled drain unit"
[ "$(systemctl is-active hacheck-drain.service)" = active ] || fail "after an installation the enabled drain unit is not active"
# At a reboot it takes the host out while the services and the daemon still run. The commands find the daemon's port.
cat >/etc/systemd/system/multi-user.target <<END
[Unit]
Description=The services
END
cat >/etc/systemd/system/web.service <<END
[Unit]
Description=A service
After=hacheck.service hacheck.socket
[Service]
ExecStart=sleep 1234
ExecStop=/bin/sh -c 'curl --silent --output /dev/null --write-out "%%{http_code}" --max-time 5 http://127.0.0.1:3334/spool/web/0/ >/out/order'
[Install]
WantedBy=multi-user.target
END
mkdir -p /etc/systemd/system/hacheck.socket.d
printf '[Socket]\nListenStream=\nListenStream=0.0.0.0:3334\n' >/etc/systemd/system/hacheck.socket.d/port.conf
# 3 has no unit. The host goes out nevertheless.
printf 'HACHECK_PORT=3334\nHACHECK_DRAIN_WAIT=3\n' >>/etc/default/hacheck
# The reboot itself waits for this script.
mkdir -p /etc/systemd/system/systemd-reboot.service.d
printf '[Unit]\nAfter=script.service\n' >/etc/systemd/system/systemd-reboot.service.d/script.conf
systemctl daemon-reload
systemctl enable web.service 2>/dev/null
systemctl restart hacheck.socket
systemctl start multi-user.target hacheck-drain.service
systemctl reboot
soon test -s /out/order
[ "$(cat /out/order)" = 404 ] || fail "when the services stop, the answer is $(cat /out/order)"
grep -q '"reason": "this machine stops".*"boot": ' /var/spool/hacheck/all || fail "the override is $(cat /var/spool/hacheck/all)"
echo "$SECONDS ok: drain at a reboot"
trap - EXIT
echo DONE
systemctl --force --force poweroff >/dev/null 2>&1
