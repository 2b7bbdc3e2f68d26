# The life of an RPM package. v1.rpm and v2.rpm are two versions of it. Dependencies are not looked at: this
# machine's packages are another manager's.
cd /tmp
. ./common.sh
rpm() { command rpm --nodeps "$@" >/tmp/out 2>&1 || fail "rpm $*: $(cat /tmp/out)"; }
if dpkg -s hacheck >/dev/null 2>&1; then dpkg --purge hacheck >/dev/null; fi
if getent passwd hacheck >/dev/null; then userdel hacheck; fi
rm -rf /var/spool/hacheck

# The file of the Python hacheck stays, and the daemon can read it.
printf 'cache_time: 7\nmysql_password: hunter2\n' >/etc/hacheck.yaml
chmod 0600 /etc/hacheck.yaml
rpm --install v1.rpm
grep -q 'is now root:hacheck 640, so that the daemon can read it (before: root:root 600)' /tmp/out || fail "it does not say that the configuration was taken over: $(cat /tmp/out)"
is 'mysql_password: hunter2' tail -n 1 /etc/hacheck.yaml
installed v1.0.0
rpm --erase hacheck
rm -f /etc/hacheck.yaml*
userdel hacheck

rpm --install v1.rpm
installed v1.0.0
works
echo 'cache_time: 7' >>/etc/hacheck.yaml
hadown web -r 'kernel upgrade'
chown root:games /var/spool/hacheck
chmod 2770 /var/spool/hacheck
rpm --upgrade v2.rpm
spool_kept root:games:2770
installed v1.0.1
is 'cache_time: 7' tail -n 1 /etc/hacheck.yaml
is "$(printf 'DOWN\tinf\tweb\tkernel upgrade')" hashowdowned
rpm --erase hacheck
must_be_gone /usr/bin/hacheck /usr/bin/halist /usr/lib/systemd/system/hacheck.service
[ -e /var/spool/hacheck/web ] || fail "the override is gone"
rpm --install v2.rpm
start_daemon
is 503 code web
haup web
stop_daemon
rpm --erase hacheck
must_be_gone /var/spool/hacheck
echo DONE
