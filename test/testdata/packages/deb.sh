# The life of a Debian package. v1.deb and v2.deb are two versions of it.
cd /tmp
. ./common.sh
quiet() { "$@" >/tmp/out 2>&1 || fail "$*: $(cat /tmp/out)"; }
if dpkg -s hacheck >/dev/null 2>&1; then quiet dpkg --purge hacheck; fi
if getent passwd hacheck >/dev/null; then userdel hacheck; fi
rm -rf /var/spool/hacheck

# Once as on a machine with systemd's tools, once as without.
for systemd in with without; do
	if [ $systemd = without ]; then
		userdel hacheck
		mv /usr/bin/systemd-sysusers /tmp/
	fi
	quiet dpkg --install v1.deb
	is "" dpkg --verify hacheck
	installed v1.0.0
	is /usr/sbin/nologin sh -c 'getent passwd hacheck | cut -d: -f7'
	for link in multi-user.target.wants/hacheck.service sockets.target.wants/hacheck.socket; do
		[ -e "/etc/systemd/system/$link" ] || fail "$link is not enabled"
	done
	works

	# What the administrator has changed stays: the configuration, its mode, and that it is not enabled.
	echo 'cache_time: 7' >>/etc/hacheck.yaml
	DPKG_MAINTSCRIPT_PACKAGE=hacheck deb-systemd-helper disable hacheck.service >/dev/null
	hadown web -r 'kernel upgrade'
	chown root:games /var/spool/hacheck
	chmod 2770 /var/spool/hacheck
	quiet dpkg --install v2.deb
	spool_kept root:games:2770
	installed v1.0.1
	is 'cache_time: 7' tail -n 1 /etc/hacheck.yaml
	must_be_gone /etc/systemd/system/multi-user.target.wants/hacheck.service
	is "$(printf 'DOWN\tinf\tweb\tkernel upgrade')" hashowdowned

	quiet dpkg --remove hacheck
	must_be_gone /usr/bin/hacheck /usr/bin/halist /usr/lib/systemd/system/hacheck.service
	is 'cache_time: 7' tail -n 1 /etc/hacheck.yaml
	[ -e /var/spool/hacheck/web ] || fail "the override is gone"

	mkdir -p /var/log/hacheck
	touch /var/log/hacheck/hacheck.log
	quiet dpkg --purge hacheck
	grep -q 'still has overrides' /tmp/out || fail "purging says nothing of the overrides: $(cat /tmp/out)"
	must_be_gone /etc/hacheck.yaml /etc/default/hacheck /etc/logrotate.d/hacheck /var/log/hacheck \
		/etc/systemd/system/sockets.target.wants/hacheck.socket
	[ -e /var/spool/hacheck/web ] || fail "the override is gone"
	getent passwd hacheck >/dev/null || fail "the user is gone, and its files are somebody's"

	# Who comes back finds them in force; without any, nothing is left but the user.
	quiet dpkg --install v2.deb
	start_daemon
	is 503 code web
	haup web
	stop_daemon
	quiet dpkg --purge hacheck
	must_be_gone /var/spool/hacheck
	is "" find /etc /usr/bin /usr/lib/systemd /usr/share/man /var/lib/systemd /var/log /var/spool -name '*hacheck*' -newer /tmp/v1.deb
done
echo DONE
